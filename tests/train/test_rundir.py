"""Run directories: new ones, and those that are found again."""

import errno
import os

import pytest

from hpc_train.config import load
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.train import rundir


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name, age=0):
    """A directory in `runs` whose configuration is `age` seconds old."""
    path = rundir.ROOT / name
    path.mkdir(parents=True)
    (path / "config.toml").write_text("")
    os.utime(path / "config.toml", (1e9 - age, 1e9 - age))
    return path


def test_new_directories_are_named_after_the_run_or_as_told():
    sections = {"data": {"train": "a", "inputs": "x"}, "model": {"name": "mlp"}}
    config = load(None, sections=sections | {"run": {"name": "my-run"}}).config
    first, second = (rundir.new_run_dir(config) for _ in range(2))
    assert first.parent == rundir.ROOT
    assert first.name.startswith("my-run-")
    assert first != second
    assert rundir._name_of(first) == "my-run"
    config = load(None, sections=sections | {"run": {"dir": "~/there"}}).config
    assert str(rundir.new_run_dir(config)) == os.path.expanduser("~/there")


def test_runs_are_found_by_path_by_name_and_by_age():
    old = run("digits-20250101-000000-aaaa", age=60)
    new = run("digits-20250102-000000-bbbb", age=30)
    other = run("digits-cnn-20250103-000000-cccc", age=0)
    assert rundir.find_run(str(old), None) == old
    assert rundir.find_run(new.name, None) == new
    assert rundir.find_run("latest", None) == other
    assert rundir.find_run("latest", "digits") == new


@pytest.mark.parametrize(("name", "of"), [("latest", None), ("latest", "other"), ("nowhere", None)])
def test_what_is_not_there_is_told(name, of):
    (rundir.ROOT / "no-config").mkdir(parents=True)
    with pytest.raises(ConfigError, match="no run") as caught:
        rundir.find_run(name, of)
    assert caught.value.hint


def test_the_file_system_refuses(here, monkeypatch):
    (here / "file").write_text("")
    with pytest.raises(HpcTrainError, match="cannot write the run directory: ") as caught:
        rundir.prepare(here / "file/run", "", {}, resuming=False)
    assert "run.dir=PATH" in caught.value.hint
    with pytest.raises(HpcTrainError, match="No space left"), rundir.writing(here):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_resumed_directory_loses_its_old_result_and_nothing_else(here):
    folder = here / "run"
    rundir.prepare(folder, "a = 1\n", {"ranks": 1}, resuming=False)
    (folder / "metrics.jsonl").write_text("kept")
    (folder / "result.json").write_text("{}")
    with pytest.raises(ConfigError, match="holds a run already"):
        rundir.prepare(folder, "a = 2\n", {}, resuming=False)
    rundir.prepare(folder, "a = 2\n", {"ranks": 2}, resuming=True)
    assert (folder / "config.toml").read_text() == "a = 2\n"
    assert {p.name for p in folder.iterdir()} == {
        "config.toml",
        "environment.json",
        "metrics.jsonl",
    }
