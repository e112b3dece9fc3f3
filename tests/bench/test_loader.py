"""Loading, measured: every side reads the same samples, figures are right, the command tells."""

import json
from contextlib import closing

import h5py
import numpy as np
import pytest

from hpc_train.bench.loader.plot import draw
from hpc_train.bench.loader.settings import Settings, make_workload
from hpc_train.bench.loader.sides import SIDES, sides_of
from hpc_train.bench.loader.study import Measured, figures, forget, measure, study
from hpc_train.cli import _main
from hpc_train.errors import DataError


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        options = {"chunks": (16, 8), "compression": 1}
        file.create_dataset("image", data=np.zeros((100, 8), np.float32), **options)
        file.create_dataset("label", data=np.arange(100))
        file.create_dataset("mean", data=np.zeros(8))
    return tmp_path / "x.h5"


def test_every_side_reads_each_sample_once(path):
    workload = make_workload(Settings(str(path), batch_size=32))
    assert workload.fields == ("image", "label")
    sides = sides_of(workload)
    assert sides.keys() == SIDES.keys()
    for name, side in sides.items():
        with closing(side.turn(workload)) as turn:
            assert next(turn) == 0
            total = sum(turn)
        assert total == (112 if name == "inflate" else 100), name  # chunks are stored whole


def test_zlib_is_no_limit_of_what_is_not_compressed(path):
    workload = make_workload(Settings(str(path), fields=("label",)))
    assert "inflate" not in sides_of(workload)


def test_a_turn_ends_with_its_time_but_not_before_what_it_must_read(path):
    workload = make_workload(Settings(str(path), batch_size=10, seconds=1e-9))
    assert measure(SIDES["one_by_one"], workload).samples == 10
    assert measure(SIDES["ours"], workload, 25).samples == 30


def test_figures_are_medians_of_rounds_and_ratios_within_rounds():
    measured = {
        "ours": [Measured(100, 1.0), Measured(40, 1.0), Measured(60, 1.0)],
        "other": [Measured(50, 1.0), Measured(5, 1.0), Measured(10, 1.0)],
    }
    found = figures(measured, {"ours": "A", "other": "B"}, 10**6)
    assert found["other"]["ours_times_as_fast"]["median"] == 6
    assert found["ours"]["ours_times_as_fast"]["median"] == 1
    assert found["ours"]["samples_per_second"]["median"] == 60
    assert found["other"]["megabytes_per_second"] == 10


def test_a_study_of_some_sides_with_a_cold_cache_and_its_picture(path, tmp_path):
    told = []
    settings = Settings(str(path), rounds=2, cold=True)
    document = study(settings, told.append, only=("ours", "machine"))
    assert document["sides"].keys() == {"ours", "machine"}
    assert document["data"]["sample_bytes"] == 40
    assert len(told) == 4
    draw(document, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000
    forget(make_workload(settings))


def test_the_command_prints_and_writes_the_figures(path, tmp_path, capsys):
    words = ["bench", "loader", str(path), "--rounds", "1", "--seconds", "0.01"]
    assert _main([*words, "--out", str(tmp_path / "out"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["settings"]["path"] == "x.h5"
    assert document["sides"]["ours"]["samples_per_second"]["median"] > 0
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".json", ".png"]


def test_the_command_shows_what_it_would_do_and_refuses_what_is_not_there(path, tmp_path, capsys):
    assert _main(["bench", "loader", str(path), "--dry-run"]) == 0
    assert "DataLoader, 2 workers" in capsys.readouterr().out
    assert _main(["bench", "loader", str(path), "--field", "labell"]) == 1
    assert "did you mean 'label'?" in capsys.readouterr().err
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(DataError, match="must hold datasets of numbers"):
        make_workload(Settings(str(tmp_path / "empty.h5")))
