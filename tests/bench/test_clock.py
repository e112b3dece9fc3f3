"""Where the time of a step goes, from phases with hand-made begins and ends."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.bench.scaling.clock import (
    PARTS,
    Phase,
    PhaseClock,
    Step,
    cut,
    from_json,
    split,
    to_json,
    typical,
)
from hpc_train.record import listening, phase

seconds = st.floats(min_value=0, max_value=100)


def phases(*rows):
    return [Phase(*row) for row in rows]


def test_steps_are_cut_at_the_ends_of_reductions():
    steps = cut(
        phases(
            ("data", 0, 1),
            ("compute", 1, 4),
            ("communication", 4, 5),
            ("update", 5, 6),
            ("data", 7, 8),
            ("compute", 8, 12),
            ("communication", 12, 15),
            ("update", 15, 16),
        )
    )
    assert steps == [Step(apart=7, reduction=3, data=1, compute=4, update=1)]
    assert steps[0].seconds == 10


def test_a_run_without_reductions_has_no_steps():
    assert cut(phases(("compute", 0, 1))) == []
    assert split([[], []]) == dict.fromkeys(PARTS, 0.0)


def test_waiting_is_what_the_slowest_rank_took_longer():
    fast = Step(apart=4, reduction=7, data=1, compute=2, update=0.5)
    slow = Step(apart=10, reduction=1, data=1, compute=8, update=0.5)
    found = split([[fast], [slow]])
    assert found["waiting"] == 3  # 6 on one of two ranks
    assert found["communication"] == 1
    assert found["compute"] == (2.5 + 8.5) / 2
    assert found["data"] == 1
    assert found["other"] == 0.5


@given(st.lists(st.tuples(seconds, seconds, seconds, seconds, seconds), min_size=1, max_size=5))
def test_the_parts_add_up_to_the_step(rows):
    ranks = [
        [Step(apart=d + c + u + rest, reduction=r, data=d, compute=c, update=u)]
        for d, c, u, rest, r in rows
    ]
    parts = split(ranks)
    whole = sum(steps[0].seconds for steps in ranks) / len(ranks)
    assert sum(parts.values()) == pytest.approx(whole)
    assert min(parts.values()) >= -1e-9


def test_a_typical_step_ignores_a_rare_stall():
    assert typical([[1.0, 9.0, 1.0], [3.0, 9.0, 3.0]]) == 2.0


def test_steps_survive_json():
    steps = [Step(1.0, 2.0, 0.1, 0.7, 0.2)]
    assert from_json(to_json(steps)) == steps


def test_the_clock_notes_phases_of_its_own_thread():
    clock = PhaseClock()

    def elsewhere():
        with phase("data"):
            pass

    with listening(clock):
        with phase("compute"):
            pass
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    assert [found.name for found in clock.phases] == ["compute"]
    assert clock.phases[0].begin <= clock.phases[0].end
