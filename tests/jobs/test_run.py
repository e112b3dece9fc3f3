"""Stories of `hpc-train run`: it trains, stops, goes on, and ends well or with a clear word."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hpc_train.cli import _main as main
from tests.jobs.processes import Job, cli, hpc_train, mpirun


def weights(run):
    """The weights in the newest checkpoint of a run, by name."""
    newest = max((run / "checkpoints").glob("step-*"))
    tensors = load_file(newest / "part-000.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model/")}


def assert_same_weights(one, other):
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        np.testing.assert_allclose(tensor, other[name], rtol=1e-10, atol=1e-12)


def steps(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(r["step"], r["epoch"], r["delivered"]) for r in records if r["kind"] == "step"]


def result(run):
    return json.loads((run / "result.json").read_text())


@pytest.fixture
def whole(config, tmp_path):
    """An uninterrupted run on one rank."""
    ended = hpc_train("run", config, "run.dir=whole", cwd=tmp_path)
    assert ended.code == 0, ended
    return tmp_path / "whole"


def test_two_ranks_by_our_launcher_equal_one(config, tmp_path, whole):
    ended = hpc_train("run", config, "run.dir=two", "-n", 2, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "test" in ended.out
    assert "accuracy" in ended.out
    assert ended.err == "", ended
    assert_same_weights(tmp_path / "two", whole)
    assert steps(tmp_path / "two") == steps(whole)
    assert result(tmp_path / "two")["status"] == "done"
    assert {p.name for p in (tmp_path / "two" / "logs").iterdir()} == {
        "rank-0000.log",
        "rank-0001.log",
    }


def test_under_mpirun_it_is_simply_one_of_the_ranks(config, tmp_path, whole):
    argv, env = mpirun(3, cli("run", config, "run.dir=three", "--json"))
    ended = Job(argv, cwd=tmp_path, env=env).end()
    assert ended.code == 0, ended
    document = json.loads(ended.out)  # one document, from one rank, and nothing else
    assert document["schema_version"] == 1
    assert document["status"] == "done"
    assert len(document["ranks"]) == 3
    assert_same_weights(tmp_path / "three", whole)


def test_save_and_leave_on_usr1_then_resume_on_another_number_of_ranks(config, tmp_path):
    long = ["run.epochs=400", "checkpoint.every=never", "run.evaluate=never"]
    job = Job(cli("run", config, "run.dir=cut", *long, "-n", 3), cwd=tmp_path)
    wait_for_steps(tmp_path / "cut", 5)
    job.signal(signal.SIGUSR1)
    ended = job.end()
    assert ended.code == 75, ended
    assert "--resume" in ended.out
    assert result(tmp_path / "cut")["status"] == "preempted"
    done = steps(tmp_path / "cut")[-1][0]
    assert 5 <= done < 5200
    target = done // 13 + 2
    ended = hpc_train(
        "run", "--resume", tmp_path / "cut", f"run.epochs={target}", "-n", 2, cwd=tmp_path
    )
    assert ended.code == 0, ended
    assert "resumed" in ended.out
    ended = hpc_train("run", config, "run.dir=whole", f"run.epochs={target}", cwd=tmp_path)
    assert ended.code == 0, ended
    assert_same_weights(tmp_path / "cut", tmp_path / "whole")
    assert steps(tmp_path / "cut") == steps(tmp_path / "whole")


def wait_for_steps(run, count):
    """Wait until a run has written `count` steps."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        path = run / "metrics.jsonl"
        if path.exists() and path.read_text().count('"kind": "step"') >= count:
            return
        time.sleep(0.05)
    raise AssertionError("no steps within a minute")


@pytest.mark.parametrize("ranks", [1, 3])
def test_ctrl_c_ends_every_rank_at_once_with_130(config, tmp_path, ranks):
    job = Job(cli("run", config, "run.dir=cut", "run.epochs=100000", "-n", ranks), cwd=tmp_path)
    wait_for_steps(tmp_path / "cut", 5)
    begun = time.monotonic()
    job.signal(signal.SIGINT)
    ended = job.end(20)
    assert ended.code == 130, ended
    assert time.monotonic() - begun < 8
    assert job.ranks() == []
    assert "Traceback" not in ended.err, ended


def test_latest_resumes_the_newest_run_and_a_finished_one_says_so(config, tmp_path):
    first = hpc_train("run", config, "run.epochs=1", cwd=tmp_path)
    assert first.code == 0, first
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("story-")
    again = hpc_train("run", "--resume", cwd=tmp_path)
    assert again.code == 2, again
    assert "complete already" in again.err
    assert "run.epochs=N" in again.err
    more = hpc_train("run", "--resume", "latest", "run.epochs=2", cwd=tmp_path)
    assert more.code == 0, more
    assert steps(run)[-1][0] == 26


def test_one_ranks_exception_ends_the_job_with_its_traceback_once(config, tmp_path):
    (tmp_path / "mine.py").write_text(BAD_TASK)
    overrides = ["task.name=mine:Bad", "run.dir=bad", "checkpoint.every=never"]
    begun = time.monotonic()
    ended = hpc_train("run", config, *overrides, "-n", 3, cwd=tmp_path)
    assert ended.code == 1, ended
    assert time.monotonic() - begun < 40
    assert ended.err.count("Traceback") == 1, ended
    assert "this rank is unwell" in ended.err
    assert re.search(r"error: rank 2 on \S+: ", ended.err), ended
    assert result(tmp_path / "bad")["status"] == "failed"
    # the state before the broken step is saved, so nothing is lost
    assert [p.name for p in (tmp_path / "bad" / "checkpoints").iterdir()] == ["step-00000004"]


BAD_TASK = """\
from hpc_train.comm import connect
from hpc_train.tasks import Classification

class Bad(Classification):
    def __init__(self):
        super().__init__()
        self.steps = 0

    def losses(self, model, batch):
        from mpi4py import MPI
        self.steps += 1
        if MPI.COMM_WORLD.rank == 2 and self.steps == 5:
            raise RuntimeError("this rank is unwell")
        return super().losses(model, batch)
"""


def test_a_rank_that_dies_takes_the_job_along_and_is_named(config, tmp_path):
    (tmp_path / "mine.py").write_text(
        BAD_TASK.replace(
            'raise RuntimeError("this rank is unwell")', "import os; os.kill(os.getpid(), 9)"
        )
    )
    argv = ["run", config, "task.name=mine:Bad", "run.dir=bad", "-n", 3, "recovery.shrink=false"]
    ended = hpc_train(*argv, "recovery.max_restarts=1", cwd=tmp_path)
    assert ended.code == 1, ended
    assert ended.err.count("restart 1, ") == 1, ended
    assert "not started again" in ended.err
    assert "rank 2" in ended.err
    assert "SIGKILL" in ended.err
    assert "Primary job" not in ended.err
    assert "-----" not in ended.err


@pytest.mark.parametrize(
    ("overrides", "code", "message"),
    [
        (["data.train=nowhere.h5"], 1, "nowhere.h5: no such file"),
        (["data.inputs=xx"], 1, "did you mean 'x'"),
        (["model.name=mpl"], 2, "did you mean 'mlp'"),
        (["model.hiden=[3]"], 2, "did you mean model.hidden"),
        (["model.num_classes=2"], 1, r"label must lie in \[0, 2\)"),
        (["data.batch_size=0"], 2, "data.batch_size"),
        (["schedule.shares=[1,2,3]"], 2, "one share for each of the 2 ranks"),
        (["data.train=TRAIN[:1]"], 2, "more ranks than samples"),
    ],
)
def test_mistakes_are_one_clear_line_before_any_rank_starts(
    config, blobs, capfd, overrides, code, message
):
    overrides = [o.replace("TRAIN", str(blobs)) for o in overrides]
    assert main(["run", str(config), *overrides, "-n", "2"]) == code
    err = capfd.readouterr().err
    assert re.search(message, err), err
    assert "Traceback" not in err
    assert err.count("error:") == 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optimizer.lr=1e300", "model.activation=relu"], "must be finite"),
        (
            ["task.name=regression", "data.targets=x", "model.num_classes=4"],
            "predictions must have the shape",
        ),
        (["model.name=cnn", "model.hidden=3"], "cnn needs inputs of shape"),
        (["run.dir=/proc/nowhere"], "/proc/nowhere: cannot write"),
    ],
)
def test_mistakes_that_only_ranks_can_find_are_one_clear_line(config, tmp_path, overrides, message):
    ended = hpc_train("run", config, *overrides, "-n", 2, cwd=tmp_path)
    assert ended.code in (1, 2), ended
    assert re.search(message, ended.err), ended
    assert "Traceback" not in ended.err, ended
    assert ended.err.count("error:") == 1, ended


def test_a_full_disk_is_a_clear_error_and_older_checkpoints_stay(config, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", str(place)], check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    try:
        overrides = [f"run.dir={place}/run", "checkpoint.every=5 steps", "run.epochs=1"]
        (place / "ballast").write_bytes(bytes(780_000))  # no flight record (270 kB) fits, either
        ended = hpc_train("run", config, *overrides, "model.hidden=[600]", "-n", 2, cwd=tmp_path)
        assert ended.code == 1, ended
        assert "No space left on device" in ended.err
        assert "Traceback" not in ended.err, ended
        (place / "ballast").unlink()
        shutil.rmtree(place / "run")
        ended = hpc_train("run", config, *overrides, "-n", 2, cwd=tmp_path)
        assert ended.code == 0, ended
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_separate_worlds_are_refused(config, tmp_path):
    env = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}
    ended = hpc_train("run", config, cwd=tmp_path, env=env)
    assert ended.code == 3, ended
    assert "world of size 1" in ended.err
    assert not (tmp_path / "runs").exists()


def test_dry_run_trains_nothing_and_loads_no_mpi(config, tmp_path):
    script = (
        "import sys; from hpc_train.cli import _main; code = _main(sys.argv[1:]); "
        "assert 'mpi4py.MPI' not in sys.modules; sys.exit(code)"
    )
    argv = [sys.executable, "-c", script, "run", str(config), "--dry-run", "-n", "3", "--json"]
    ended = Job(argv, cwd=tmp_path).end()
    assert ended.code == 0, ended
    plan = json.loads(ended.out)["plan"]
    assert plan["shares"] == [6, 5, 5]
    assert plan["steps"] == 39
    assert sorted(p.name for p in tmp_path.iterdir()) == ["story.toml"]


def test_a_script_of_the_users_own_runs_alone_and_under_mpirun(blobs, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("DATA", str(blobs)))
    alone = Job([sys.executable, str(script)], cwd=tmp_path).end()
    assert alone.code == 0, alone
    argv, env = mpirun(2, [sys.executable, str(script)])
    both = Job(argv, cwd=tmp_path, env=env).end()
    assert both.code == 0, both
    (first, second) = sorted(Path(tmp_path / "runs").iterdir(), key=lambda p: p.stat().st_mtime)
    assert_same_weights(first, second)


SCRIPT = """\
from torch import nn
from hpc_train import Trainer
import torch

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))
trainer = Trainer(
    model,
    data={"train": "DATA", "test": "DATA", "inputs": "x", "targets": "label", "batch_size": 20},
    run={"epochs": 2},
    optimizer={"lr": 0.05},
    precision={"dtype": "float64"},
)
result = trainer.fit()
assert result.metrics["test"]["accuracy"] > 0.5
"""
