"""Replay and slots: one order of transitions, whoever plays; open episodes come back to life."""

from itertools import pairwise

import numpy as np
import pytest

from hpc_train.reinforcement import Gridworld, Replay, Slots
from hpc_train.reinforcement.slots import unpack

E, LIMIT = 5, 12


def transitions(numbers):
    numbers = np.asarray(numbers)
    seen = np.stack([numbers, -numbers], axis=1)
    return {
        "observation": seen,
        "action": numbers,
        "reward": numbers / 2,
        "next_observation": seen + 1,
        "next_action": numbers + 1,
        "terminated": numbers % 2,
    }


def test_a_ring_keeps_the_last_transitions_by_their_numbers():
    replay = Replay(5, (2,))
    replay.add(transitions([0, 1, 2]))
    assert len(replay) == 3
    replay.add(transitions([3, 4, 5, 6]))
    assert (len(replay), replay.count) == (5, 7)
    np.testing.assert_array_equal(replay.take(replay.latest(3))["action"], [4, 5, 6])
    found = replay.take(np.array([6, 2, 4]))
    np.testing.assert_array_equal(found["observation"][:, 1], [-6, -2, -4])
    np.testing.assert_array_equal(found["terminated"], [0, 0, 0])


def test_batches_are_drawn_evenly_from_what_is_kept():
    replay = Replay(8, (2,))
    replay.add(transitions(range(20)))
    drawn = np.concatenate([replay.drawn(3, batch, 100) for batch in range(40)])
    counts = np.bincount(drawn, minlength=20)
    assert not counts[:12].any()
    assert counts[12:].min() > 400
    np.testing.assert_array_equal(replay.drawn(3, 5, 100), drawn[500:600])
    assert (replay.drawn(4, 5, 100) != drawn[500:600]).any()


def policy(observations):
    return (observations.argmax(1) % 4).astype(np.int64)


def play(slots, shares, rounds, epsilon=0.5):
    """Rounds of all slots, cut into `shares` among ranks, each with environments of its own."""
    found = []
    for _ in range(rounds):
        rows = [
            r
            for own, part in zip(slots, shares, strict=True)
            for r in own.play(part, policy, epsilon)
        ]
        moved, ended, pending = unpack(np.stack([row.pack() for row in rows]), (12,))
        for own in slots:
            done = own.hear(moved["reward"], moved["action"], ended, pending)
        found.append((moved, done))
    return found


def make():
    return Slots(lambda: Gridworld(slip=0.3), E, LIMIT, seed=3)


def same(one, other):
    for (a, done), (b, also) in zip(one, other, strict=True):
        assert done == also
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("shares", [[[0, 1], [2, 3, 4]], [[], [0, 1, 2], [3], [4]]])
def test_whoever_plays_the_slots_the_transitions_are_the_same(shares):
    alone = play([make()], [range(E)], 40)
    same(play([make() for _ in shares], shares, 40), alone)
    assert sum(len(done) for _, done in alone) > 5
    assert len({int(moved["action"][0]) for moved, _ in alone}) == 4


def test_open_episodes_are_taken_up_where_they_were():
    whole = play([make()], [range(E)], 30)
    first = make()
    play([first], [range(E)], 17)
    assert first.length.any()
    later = make()
    later.restore({n: getattr(first, n).copy() for n in ("episode", "length", "total", "actions")})
    same(play([later], [range(E)], 13), whole[17:])


def test_transitions_follow_each_other_and_sarsa_takes_the_action_it_announced():
    rounds = play([make()], [range(E)], 40)
    for (before, _), (after, _) in pairwise(rounds):
        for slot in range(E):
            if before["terminated"][slot]:
                continue
            if (before["next_observation"][slot] == after["observation"][slot]).all():
                assert before["next_action"][slot] == after["action"][slot]


def test_without_exploration_actions_are_the_policys():
    for moved, _ in play([make()], [range(E)], 10, epsilon=0.0):
        np.testing.assert_array_equal(moved["action"], policy(moved["observation"]))


def test_episodes_are_broken_off_at_the_limit():
    slots = Slots(lambda: Gridworld(rows=["....#G"]), 2, 3, seed=0)
    done = [d for _, ended in play([slots], [range(2)], 6) for d in ended]
    assert [length for _, length in done] == [3] * 4
