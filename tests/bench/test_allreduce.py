"""The benchmark of sums: sizes, figures, tables, and a small study with real ranks."""

import json

import pytest

from hpc_train.bench.allreduce.report import (
    bandwidth_rows,
    by_dtype,
    figures,
    ratio_rows,
    size_text,
)
from hpc_train.bench.allreduce.settings import Settings, parse_dtypes, repeats
from hpc_train.cli import _main as main
from hpc_train.errors import UsageError


def point(size=2**26, dtype="float32", **seconds):
    return {"dtype": dtype, "bytes": size, "seconds": seconds}


def test_sizes_grow_by_four_and_end_with_the_largest():
    assert Settings(smallest=2**10, largest=2**14).sizes() == [2**10, 2**12, 2**14]
    assert Settings(smallest=100, largest=500).sizes() == [100, 400, 500]
    assert Settings(smallest=64, largest=64).sizes() == [64]
    assert len(Settings().sizes()) == 10


def test_settings_survive_json():
    settings = Settings(3, 64, 2**20, ("bfloat16",), 4)
    assert Settings.from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"ranks": 1}, "at least 2 ranks"),
        ({"dtypes": ("float23",)}, "did you mean 'float32'"),
        ({"dtypes": ()}, "a type is needed"),
        ({"smallest": 4}, "at least 8 bytes"),
        ({"smallest": 2**20, "largest": 2**10}, "not below the smallest"),
    ],
)
def test_mistakes_are_named(wrong, message):
    with pytest.raises(UsageError, match=message):
        Settings(**wrong)


def test_short_sums_are_repeated_so_that_values_stay_finite():
    assert [repeats(size) for size in (8, 2**17, 2**20, 2**21, 2**28)] == [20, 16, 2, 1, 1]
    assert parse_dtypes(" float64,float32, float64,") == ("float64", "float32")


def test_bandwidths_and_ratios_are_of_medians_and_of_rounds():
    found = figures(
        point(mpi=[4e-3, 8e-3, 4e-3], native=[2e-3, 4e-3, 2e-3], arena=[1e-3, 2e-3, 1e-3]), 4
    )
    assert found["best_mpi"] == "native"
    assert found["sides"]["mpi"]["algorithm_bandwidth"] == pytest.approx(2**26 / 4e-3)
    assert found["sides"]["mpi"]["bus_bandwidth"] == pytest.approx(1.5 * 2**26 / 4e-3)
    assert found["ratios"]["arena / MPI"]["median"] == pytest.approx(4)
    assert found["ratios"]["arena / best MPI"]["high"] == pytest.approx(2)
    assert "arena / limit" not in found["ratios"]


def test_the_limit_is_one_only_beyond_the_caches():
    seconds = {"arena": [2.0], "once": [1.5], "limit": [1.0], "limit_arena": [0.75]}
    ratios = figures(point(**seconds), 2)["ratios"]
    assert ratios["arena / limit"]["median"] == ratios["once / limit, arena"]["median"] == 0.5
    assert ratios["once / limit"]["median"] == pytest.approx(2 / 3)
    small = figures(point(2**20, "bfloat16", **seconds), 2)
    assert small["ratios"] == {}
    assert small["best_mpi"] is None


def test_tables_have_a_row_per_size_and_leave_out_what_was_not_measured():
    points = [
        figures(point(2**10, mpi=[1e-6], arena=[5e-7]), 2),
        figures(point(2**28, mpi=[0.1], arena=[0.0125], limit=[0.01]), 2),
        figures(point(2**28, "bfloat16", arena=[0.1]), 2),
    ]
    groups = by_dtype(points)
    assert list(groups) == ["float32", "bfloat16"]
    assert bandwidth_rows(groups["float32"]) == [
        ["size", "MPI", "shared arena", "limit"],
        ["1 KiB", "1.02", "2.05", ""],
        ["256 MiB", "2.68", "21.5", "26.8"],
    ]
    rows = ratio_rows(groups["float32"])
    assert rows[0] == ["size", "arena / MPI", "arena / best MPI", "arena / limit"]
    assert rows[-1] == ["mean", "4.00", "4.00", "0.80"]
    assert ratio_rows(groups["bfloat16"]) == [["size"], ["256 MiB"], ["mean"]]
    assert [size_text(n) for n in (2**30, 3 * 2**20, 1000)] == ["1 GiB", "3 MiB", "1000 B"]


def test_a_small_study_with_two_ranks(tmp_path, capfd):
    words = ["bench", "allreduce", "--rounds", "1", "--smallest", "4 KiB", "--largest", "256 KiB"]
    assert main([*words, "--dtypes", "float32,bfloat16", "--json", "--out", str(tmp_path)]) == 0
    document = json.loads(capfd.readouterr().out)
    assert [p["bytes"] for p in document["points"]] == 2 * [2**12, 2**14, 2**16, 2**18]
    first, last = document["points"][0], document["points"][-1]
    assert {"mpi", "native", "ring", "shared", "auto", "arena", "once", "gloo"} <= first[
        "sides"
    ].keys()
    assert "mpi" not in last["sides"]
    assert {choice["dtype"] for choice in document["auto"]} == {"float32", "bfloat16"}
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".png"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--smallest", "some"], "--smallest: a size must be a number of bytes"),
        (["--dtypes", "int8"], "--dtypes: unknown type"),
        (["-n", "1"], "1 is not in the range x>=2"),
    ],
)
def test_mistakes_on_the_command_line(words, message, capsys):
    assert main(["bench", "allreduce", *words]) == 2
    assert message in capsys.readouterr().err


def test_dry_run_starts_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "allreduce", "--dry-run"]) == 0
    assert "2 ranks, 15 rounds of: MPI, " in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
