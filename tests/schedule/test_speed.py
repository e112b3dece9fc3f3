"""The speed model learns from waiting-free seconds, drops outliers, and believes jumps."""

import numpy as np
import pytest

from hpc_train.schedule import Speeds


def observed(speeds, counts, fixed, pace, steps, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    for _ in range(steps):
        times = np.array(fixed) + np.array(pace) * counts
        speeds.observe(counts, times * np.exp(noise * random.standard_normal(len(times))))
    return speeds


def test_one_step_is_enough_where_time_is_proportional():
    speeds = Speeds(3)
    assert not speeds.known.any()
    observed(speeds, [8, 8, 8], 0, [1, 2, 4], 1)
    assert speeds.pace == pytest.approx([1, 2, 4])
    assert speeds.seconds([4, 2, 0]) == pytest.approx([4, 4, 0])


def test_offset_and_slope_are_found_once_counts_have_varied():
    speeds = observed(Speeds(2), [16, 16], 3, [1, 2], 10)
    observed(speeds, [22, 10], 3, [1, 2], 30)
    assert speeds.fixed == pytest.approx([3, 3], abs=0.2)
    assert speeds.pace == pytest.approx([1, 2], rel=0.02)


def test_a_rank_that_never_varied_takes_its_shape_from_the_others():
    speeds = observed(Speeds(3), [16, 16, 16], [8, 8, 8], [1, 1, 1], 10)
    observed(speeds, [8, 24, 16], [8, 8, 8], [1, 1, 1], 20)
    speeds.observe([8, 24, 15], [16, 32, 23])
    assert speeds.seconds([8, 8, 8])[2] == pytest.approx(16, rel=0.05)


def test_a_single_outlier_changes_nothing():
    speeds = observed(Speeds(2), [8, 8], 0, [1, 1], 20, noise=0.02)
    before = speeds.seconds([8, 8])
    speeds.observe([8, 8], [8, 80])
    observed(speeds, [8, 8], 0, [1, 1], 2)
    assert speeds.seconds([8, 8]) == pytest.approx(before, rel=0.02)


@pytest.mark.parametrize(
    ("factor", "steps"), [(0.25, 2), (0.5, 2), (1.2, 5), (1.35, 4), (2, 2), (4, 2)]
)
def test_a_jump_is_believed_the_sooner_the_larger_it_is(factor, steps):
    speeds = observed(Speeds(2), [8, 8], 0, [1, 1], 30, noise=0.02)
    for step in range(steps):
        assert speeds.seconds([8, 8]) == pytest.approx([8, 8], rel=0.02)
        observed(speeds, [8, 8], 0, [1, factor], 1, noise=0.02, seed=step)
    assert speeds.seconds([8, 8]) == pytest.approx([8, 8 * factor], rel=0.06)


def test_a_neighbour_that_stays_for_three_steps_changes_nothing():
    speeds = observed(Speeds(2), [8, 8], 0, [1, 1], 30, noise=0.02)
    before = speeds.seconds([8, 8])
    observed(speeds, [8, 8], 0, [1, 1.25], 3, noise=0.02)
    observed(speeds, [8, 8], 0, [1, 1], 3, noise=0.02)
    assert speeds.seconds([8, 8]) == pytest.approx(before, rel=0.02)


def test_a_small_surprise_before_a_stall_is_no_jump():
    speeds = observed(Speeds(2), [8, 8], 0, [1, 1], 30, noise=0.02)
    before = speeds.seconds([8, 8])
    speeds.observe([8, 8], [8, 10])
    speeds.observe([8, 8], [8, 400])
    observed(speeds, [8, 8], 0, [1, 1], 3, noise=0.02)
    assert speeds.seconds([8, 8]) == pytest.approx(before, rel=0.02)
    assert speeds.error[1] < 0.05


def test_slow_drift_is_followed():
    speeds = Speeds(1)
    for step in range(200):
        speeds.observe([10], [10 * 1.005**step])
    assert speeds.seconds([10])[0] == pytest.approx(10 * 1.005**199, rel=0.1)


def test_stalls_that_recur_count_into_the_mean():
    """A CPU quota with a long period: most steps at full speed, every fifth one stalls."""
    speeds = Speeds(1)
    found = []
    for step in range(400):
        speeds.observe([10], [67.0 if step % 5 == 4 else 6.0])
        found.append(speeds.seconds([10])[0])
    assert np.mean(found[100:]) == pytest.approx(18.2, rel=0.15)


def test_ranks_without_samples_tell_nothing():
    speeds = observed(Speeds(2), [8, 8], 0, [1, 3], 5)
    for _ in range(20):
        speeds.observe([16, 0], [16.0, 0.2])
    assert speeds.pace == pytest.approx([1, 3])
    assert speeds.seconds([16, 0])[1] == 0


def test_predictions_are_never_negative_nor_flat():
    random = np.random.default_rng(0)
    speeds = Speeds(8)
    for _ in range(200):
        counts = random.integers(0, 30, 8)
        speeds.observe(counts.tolist(), np.where(counts > 0, random.exponential(1, 8), 0.0))
        known = speeds.known
        assert (speeds.pace[known] > 0).all()
        assert (speeds.fixed >= 0).all()


def test_stalls_now_and_then_count_for_nothing():
    """A job that gives way to another one every ten steps is as fast as between its pauses."""
    speeds = observed(Speeds(2), [8, 8], 0, [1, 1], 20, noise=0.1)
    for step in range(200):
        noise = np.exp(0.1 * np.random.default_rng(step).standard_normal(2))
        speeds.observe([8, 8], [8 * noise[0] + 140 * (step % 10 == 0), 8 * noise[1]])
        assert speeds.seconds([8, 8])[0] < 10.5
    assert speeds.error[0] < 0.08
