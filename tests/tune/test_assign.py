"""Who trains what: list scheduling of trials, joining, and how long trials take."""

import random

import pytest

from hpc_train.tune.assign import Want, assign, duration, in_order, join, widen
from hpc_train.tune.durations import Durations
from hpc_train.tune.space import Space
from tests.tune.studies import SPACE, study


def even(count):
    return dict.fromkeys(range(count), 0.0), dict.fromkeys(range(count), 1.0)


def test_longest_first_is_near_the_bound_and_beats_taking_turns():
    chance = random.Random(0)
    gains = []
    for _ in range(50):
        lengths = [8 ** chance.random() for _ in range(16)]
        wants = in_order([Want(n, length, 1) for n, length in enumerate(lengths)])
        end = max(place.finish for place in assign(wants, *even(4), 0.0))
        bound = max(sum(lengths) / 4, *lengths)
        assert end <= (4 / 3 - 1 / 12) * bound
        gains.append(max(sum(lengths[rank::4]) for rank in range(4)) / end)
    assert sorted(gains)[25] > 1.15


def test_a_slow_rank_does_not_take_what_a_fast_one_ends_earlier():
    (place,) = assign([Want(0, 10.0, 1)], {0: 3.0, 1: 0.0}, {0: 1.0, 1: 4.0}, 0.0)
    assert place.ranks == (0,)


def test_a_wide_trial_keeps_the_ranks_that_it_waits_for():
    wants = [Want(0, 10.0, 2), Want(1, 100.0, 1), Want(2, 1.0, 1)]
    places = {p.trial: p for p in assign(wants, {0: 0.0, 1: 5.0}, {0: 1.0, 1: 1.0}, 0.0)}
    assert places[0].start == 5.0
    assert places[1].start >= places[0].finish


@pytest.mark.parametrize(
    ("left", "idle", "who"),
    [
        ({0: (100.0, 1), 1: (20.0, 1)}, 2, 0),
        ({0: (6.0, 1)}, 3, None),  # starting again costs more
        ({0: (100.0, 64)}, 1, None),  # one more hardly helps
        ({}, 3, None),
    ],
)
def test_idle_ranks_join_what_ends_last_where_it_pays(left, idle, who):
    assert join(left, idle, 5.0) == who


def test_spare_ranks_go_to_the_longest():
    wants = widen([Want(0, 100.0, 1), Want(1, 20.0, 1), Want(2, 1.0, 1)], 3, 5.0)
    ranks = {want.trial: want.ranks for want in wants}
    assert ranks == {0: 4, 1: 1, 2: 1}
    assert duration(100.0, 4) < 100.0 / 3


def test_durations_are_learned_from_size_and_point():
    space = Space.ordered(study(space=SPACE).space)
    chance = random.Random(1)

    def point():
        return space.ask(
            lambda key, one: (
                chance.choice(one.choices)
                if one.choices
                else one.low + (one.high - one.low) * chance.random()
            )
        )

    def seconds(p):
        return p["run.epochs"] * (3.0 if p["model.hidden"] == [8, 8] else 1.0)

    durations = Durations(space)
    assert durations.foretell(point(), 1.0) is None
    for _ in range(20):
        one = point()
        durations.learn(one, one["run.epochs"], seconds(one))
    for _ in range(20):
        one = point()
        told = durations.foretell(one, one["run.epochs"])
        assert told == pytest.approx(seconds(one), rel=0.25)
