"""Drills: a full disk, the signal to save and leave, and ranks that end without a word."""

import json
import os

import pytest

from hpc_train.launch import find
from hpc_train.launch.mpirun import can_lose_ranks
from tests.jobs.conftest import CONFIG
from tests.jobs.processes import hpc_train
from tests.jobs.test_run import assert_same_weights, result, steps

COMMON = ("run.evaluate=10 steps", "checkpoint.every=10 steps", "checkpoint.keep_last=9")


@pytest.fixture(scope="module")
def calm(tmp_path_factory, blobs):
    """An undisturbed run on one rank."""
    folder = tmp_path_factory.mktemp("calm")
    (folder / "story.toml").write_text(CONFIG.format(train=blobs))
    ended = hpc_train("run", "story.toml", "run.dir=calm", *COMMON, cwd=folder)
    assert ended.code == 0, ended
    return folder / "calm"


def test_a_full_disk_costs_one_checkpoint_and_not_the_run(config, tmp_path, calm):
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 2, "--inject=disk-full@ckpt2"]
    ended = hpc_train(*argv, cwd=tmp_path)
    assert ended.code == 0, ended
    hurt = tmp_path / "hurt"
    assert ended.err.count("No space left on device; going on with the older ones") == 1, ended
    records = [json.loads(line) for line in (hurt / "metrics.jsonl").read_text().splitlines()]
    assert [r.get("event") for r in records].count("save failed") == 1
    there = {path.name for path in (hurt / "checkpoints").iterdir()}
    assert there == {p.name for p in (calm / "checkpoints").iterdir()} - {"step-00000020"}
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)


@pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)
@pytest.mark.parametrize(
    "faults", [("exit:0@9", "exit:2@17:data"), ("raise:1@9:communication", "exit:0@17:update")]
)
def test_ranks_that_end_without_a_word_are_lost_like_any_other(config, tmp_path, calm, faults):
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 3]
    ended = hpc_train(*argv, *(f"--inject={fault}" for fault in faults), cwd=tmp_path)
    assert ended.code == 0, ended
    hurt = tmp_path / "hurt"
    assert len(result(hurt)["ranks"]) == 1
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)


def test_ranks_that_are_told_to_leave_save_and_go_on_later(config, tmp_path, calm):
    argv = ["run", config, "run.dir=hurt", *COMMON, "-n", 2, "--inject=preempt@16"]
    ended = hpc_train(*argv, cwd=tmp_path)
    assert ended.code == 75, ended
    hurt = tmp_path / "hurt"
    assert result(hurt)["status"] == "preempted"
    assert (hurt / "checkpoints" / "step-00000017").is_dir()
    ended = hpc_train("run", "--resume", hurt, "-n", 3, cwd=tmp_path)
    assert ended.code == 0, ended
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)
