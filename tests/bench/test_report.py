"""Turns of a study and the figures made of them, with hand-made seconds."""

import pytest

from hpc_train.bench.scaling.clock import PARTS
from hpc_train.bench.scaling.measured import oversubscribed
from hpc_train.bench.scaling.report import check_losses, part_rows, report, rows
from hpc_train.bench.scaling.settings import SIDES, Settings, Turn, parse_modes, parse_ranks
from hpc_train.errors import HpcTrainError, UsageError


def result(step_seconds, losses=(2.0, 1.0)):
    return {
        "step_seconds": step_seconds,
        "parts_seconds": {name: step_seconds / len(PARTS) for name in PARTS},
        "losses": list(losses),
        "oversubscribed": False,
        "mpi": "some MPI",
        "nodes": 1,
    }


def measured(settings, seconds):
    """The same `seconds(side, ranks, batch)` in every round, on a machine of changing speed."""
    return {
        turn: [result(speed * seconds(*turn)) for speed in (1.0, 5.0, 2.0)[: settings.rounds]]
        for turn in settings.turns()
    }


def test_ranks_are_sorted_and_taken_once():
    assert parse_ranks("4, 1,2,1") == (1, 2, 4)
    assert parse_modes("weak,strong,weak") == ("weak", "strong")


@pytest.mark.parametrize("text", ["", "1,", "0", "-1", "two", "1;2"])
def test_ranks_that_are_none_are_refused(text):
    with pytest.raises(UsageError, match="must read like"):
        parse_ranks(text)


def test_a_round_holds_every_side_next_to_the_others_and_no_job_twice():
    turns = Settings((1, 2)).turns()
    assert turns[:3] == [Turn(side, 1, 128) for side in SIDES]
    assert [t for t in turns if t.ranks == 1] == turns[:3]
    assert [t.batch_size for t in turns if t.side == "ddp"] == [128, 128, 256]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ranks": ()}, "different numbers"),
        ({"ranks": (2, 1)}, "different numbers"),
        ({"ranks": (1,), "modes": ("stron",)}, "did you mean 'strong'"),
        ({"ranks": (1,), "modes": ()}, "a mode is needed"),
        ({"ranks": (1, 9), "batch_size": 8}, "every rank needs a sample"),
    ],
)
def test_settings_that_cannot_be_measured_are_refused(wrong, message):
    with pytest.raises(UsageError, match=message):
        Settings(**wrong)


@pytest.mark.parametrize("ranks", [(1, 2, 4), (2, 4), (3,)])
def test_perfect_scaling_is_100_percent_in_both_modes(ranks):
    settings = Settings(ranks, rounds=3)
    found = report(settings, measured(settings, lambda side, n, batch: batch / n / 1000))
    for points in found["modes"].values():
        for point, n in zip(points, ranks, strict=True):
            for side in SIDES:
                figures = point["sides"][side]
                assert figures["speed_up"]["median"] == pytest.approx(n)
                assert figures["efficiency"] == pytest.approx(1)


def test_ratios_are_of_neighbours_in_a_round():
    cost = {"hpc_train": 2.0, "ddp": 3.0, "alone": 1.0}
    settings = Settings((1,), rounds=3)
    found = report(settings, measured(settings, lambda side, n, batch: cost[side]))
    point = found["modes"]["strong"][0]
    assert point["vs_ddp"] == {"median": 1.5, "low": 1.5, "high": 1.5, "count": 3}
    assert point["of_limit"]["median"] == 0.5


def test_no_gain_is_a_speed_up_of_one():
    settings = Settings((1, 2), ("strong",), rounds=1)
    found = report(settings, measured(settings, lambda *turn: 0.1))
    figures = found["modes"]["strong"][1]["sides"]["hpc_train"]
    assert figures["speed_up"]["median"] == 1
    assert figures["efficiency"] == 0.5


def test_tables_have_a_row_per_side_and_mark_too_few_cores():
    settings = Settings((1, 2), ("strong",), rounds=1)
    found = measured(settings, lambda *turn: 0.1)
    found[Turn("hpc_train", 2, 128)][0]["oversubscribed"] = True
    points = report(settings, found)["modes"]["strong"]
    table = rows(points)
    assert len(table) == 1 + 2 * len(SIDES)
    assert {len(row) for row in table} == {9}
    assert [row[0] for row in table if row[0]] == ["ranks", "1", "2*"]
    assert part_rows(points)[1][1] == "20.00 ms (20.0%)"


def test_sides_that_train_something_else_are_found_out():
    turns = {Turn("hpc_train", 1, 8): [result(1.0)], Turn("ddp", 1, 8): [result(1.0, [2.0, 1.1])]}
    with pytest.raises(HpcTrainError, match="must train the same"):
        check_losses(turns)
    turns[Turn("ddp", 1, 8)] = [result(1.0, [2.0, float("nan")])]
    with pytest.raises(HpcTrainError, match="must train the same"):
        check_losses(turns)
    turns[Turn("ddp", 1, 8)] = [result(1.0, [2.0, 1.0001])]
    assert check_losses(turns) == pytest.approx(1e-4)
    turns[Turn("ddp", 1, 16)] = [result(1.0, [9.0, 9.0])]  # other batches, other losses
    assert check_losses(turns) == pytest.approx(1e-4)


def test_too_few_cores_are_noticed_on_any_node():
    assert not oversubscribed((0, 0), [[0, 1], [0, 1]], threads=1)
    assert oversubscribed((0, 0), [[0, 1], [0, 1]], threads=2)
    assert oversubscribed((0, 1, 1), [[0], [0], [0]], threads=1)
