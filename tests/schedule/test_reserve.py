"""The reserve: every sample is owned or in one item, and every item finds somebody."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.plan import Batch
from hpc_train.schedule import POLICIES, Reserve, Scheduler, Situation, replay
from hpc_train.schedule.reserve import simulate

shares = st.lists(st.integers(0, 200), min_size=2, max_size=12).filter(any)
reserves = st.builds(
    Reserve, st.floats(0.1, 0.25), st.integers(1, 9), st.none() | st.integers(1, 20)
)


@given(shares, reserves)
def test_each_sample_is_owned_by_one_rank_or_in_one_item(shares, reserve):
    cut = reserve.cut(shares)
    batch = Batch(3, 0, 1000, 1000 + sum(shares))
    works = [cut.work(batch, rank) for rank in range(len(shares))]
    ranges = [(work.start, work.stop) for work in works]
    ranges += [cut.place(number) for number in range(cut.num_items)]
    ends = [0]
    for first, last in ranges:
        assert first == ends[-1]
        ends.append(last)
    assert ends[-1] == batch.size
    assert all(bool(own) == bool(share) for own, share in zip(cut.owned, shares, strict=True))
    assert batch.size - sum(cut.owned) <= reserve.part * batch.size
    for first, last in ranges[len(shares) : -1]:
        if reserve.unit > 1:
            assert last - first == reserve.unit
        assert last - first <= max(reserve.unit, reserve.most or batch.size)


@given(shares, reserves)
def test_what_is_read_lies_where_it_is_said_to_lie(shares, reserve):
    cut = reserve.cut(shares)
    batch = Batch(0, 0, 0, sum(shares))
    for rank, share in enumerate(shares):
        work = cut.work(batch, rank)
        places = [work.place(number) for number in range(work.reads)]
        assert places == [*range(work.start, work.stop), *range(*work.reserve)]
        assert work.reads == (cut.owned[rank] + cut.size - sum(cut.owned) if share else 0)


@given(shares, reserves, st.data())
def test_every_item_is_taken_whoever_is_slow(shares, reserve, data):
    cut = reserve.cut(shares)
    count = len(shares)
    pace = data.draw(st.lists(st.floats(0.01, 100), min_size=count, max_size=count))
    counts, claimed = simulate(cut, lambda n: np.array(pace) * n)
    assert counts.sum() == cut.size
    assert (counts - claimed.samples).tolist() == list(cut.owned)
    assert all(n == 0 for n, share in zip(counts, shares, strict=True) if share == 0)
    assert np.allclose(claimed.seconds, np.array(pace) * claimed.samples)


def test_ranks_of_one_speed_share_the_last_items_and_a_slow_one_leaves_them():
    cut = Reserve(0.2).cut((52, 52, 52, 52))
    assert [cut.least_left(rank) for rank in range(4)] == [1, 1, 1, 1]
    sizes = [cut.place(n)[1] - cut.place(n)[0] for n in range(cut.num_items)]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(sizes) == 41
    slow = Reserve(0.2).cut((64, 64, 64, 16))
    assert [slow.least_left(rank) for rank in range(3)] == [1, 1, 1]
    assert slow.least_left(3) > 4
    assert Reserve(0.2).cut((5, 0)).least_left(1) > Reserve(0.2).cut((5, 0)).num_items


def steps(policy, seconds, num_ranks, num_steps):
    reserve = Reserve(0.2) if POLICIES[policy].reserves else None
    situation = Situation.unknown(52 * num_ranks, num_ranks)
    scheduler = Scheduler(POLICIES[policy], situation, num_steps, reserve)
    found = replay(scheduler, seconds, num_steps)
    assert all(sum(step.counts) == 52 * num_ranks for step in found)
    return scheduler, math.fsum(step.finish for step in found[20:])


@pytest.mark.parametrize("num_ranks", [2, 4, 16])
def test_noise_that_no_forecast_catches_costs_less(num_ranks):
    noise_rng = np.random.default_rng(num_ranks)
    noise = np.exp(0.2 * noise_rng.standard_normal((200, num_ranks)))

    def seconds(step, counts):
        return (0.001 * counts + 0.01) * (counts > 0) * noise[step]

    _, forecast = steps("min_finish_time", seconds, num_ranks, 200)
    _, claimed = steps("dynamic", seconds, num_ranks, 200)
    assert claimed < 0.95 * forecast


def test_speeds_are_learned_from_what_is_owned_alone():
    """Who is slow today claims less: of all samples, seconds would not seem to depend on them."""
    noise_rng = np.random.default_rng(1)
    noise = np.exp(0.1 * noise_rng.standard_normal((300, 4)))
    pace = np.array([1.0, 1.0, 1.0, 4.0])
    scheduler, _ = steps("dynamic", lambda step, n: pace * n * noise[step], 4, 300)
    assert scheduler.plan.counts[3] == pytest.approx(16, abs=3)
    balance = scheduler.balance
    assert balance.equal_seconds > 2 * balance.seconds
