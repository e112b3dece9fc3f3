"""Stories of a parameter server that is killed: its standby goes on, and nothing counts twice."""

import os

import pytest

from hpc_train.launch import find
from hpc_train.launch.mpirun import can_lose_ranks
from tests.jobs.conftest import CONFIG
from tests.jobs.processes import hpc_train
from tests.jobs.test_lost_ranks import lost
from tests.jobs.test_run import assert_same_weights, result, steps

pytestmark = pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)

# Gradients that do not depend on the weights: whatever the order of updates, and however stale
# their gradients, the weights are the same if each sample counts once, and are not if one does not.
# Whoever serves dies before or after one of its updates, whoever works as it computes.
MINE = """\
import os, signal
from dataclasses import replace
from hpc_train.strategies.learner import Learner
from hpc_train.tasks import TASKS

own, counts, update = os.environ.get("OMPI_COMM_WORLD_RANK"), {}, Learner.update
deaths = [one.split(":") for one in os.environ.get("DEATHS", "").split()]

def pass_by(where):
    counts[where] = counts.get(where, 0) + 1
    if [own, where, str(counts[where])] in deaths:
        os.kill(os.getpid(), signal.SIGKILL)

def deadly(self, factor):
    pass_by("before")
    update(self, factor)
    pass_by("after")

Learner.update = deadly

class Linear(TASKS["classification"]):
    def losses(self, model, batch):
        pass_by("compute")
        return replace(super().losses(model, batch), values=batch.through(model).sum(1))
"""
COMMON = (
    "task.name=mine:Linear",
    "model.hidden=[]",
    "optimizer.momentum=0.0",
    "run.evaluate=20 steps",
    "checkpoint.every=15 steps",
)


def train(folder, name, train, *options, deaths="", told=""):
    (folder / "mine.py").write_text(MINE)
    (folder / "story.toml").write_text(CONFIG.format(train=train))
    argv = ["run", "story.toml", f"run.dir={name}", *COMMON, *options]
    ended = hpc_train(*argv, cwd=folder, env={"DEATHS": deaths}, seconds=150)
    assert ended.code == 0, ended
    assert told in ended.err, ended
    return folder / name


@pytest.fixture(scope="module")
def calm(tmp_path_factory, blobs):
    """An undisturbed run on one rank."""
    return train(tmp_path_factory.mktemp("calm"), "calm", blobs)


@pytest.mark.parametrize(
    ("staleness", "deaths"),
    [
        ("0", "0:before:7 3:compute:13 1:after:9"),
        ("2", "0:after:3 3:compute:9 1:before:14"),
        ("unbounded", "0:before:16 1:after:2"),
    ],
)
def test_a_server_is_replaced_by_its_standby(staleness, deaths, calm, blobs, tmp_path):
    options = ("-n", 4, "strategy.name=parameter_server", f"strategy.staleness={staleness}")
    hurt = train(tmp_path, "hurt", blobs, *options, deaths=deaths)
    assert result(hurt)["status"] == "done"
    assert len(lost(hurt)) >= 2
    told, expected = steps(hurt), steps(calm)
    assert [step for step, *_ in told] == [step for step, *_ in expected]
    assert sorted(one for _, *one in told) == sorted(one for _, *one in expected)
    assert staleness == "unbounded" or told == expected  # there the order is free
    assert_same_weights(hurt, calm)


SERVERS = ("-n", 4, "strategy.name=parameter_server", "strategy.servers=2")


def test_ranks_that_hold_no_slice_are_lost_without_loss(calm, blobs, tmp_path):
    options = (*SERVERS, "strategy.staleness=2")
    hurt = train(tmp_path, "hurt", blobs, *options, deaths="3:compute:5 2:compute:13")
    assert len(lost(hurt)) == 2
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_only_server_that_ranks_suffice_for_has_a_standby(rank, calm, blobs, tmp_path):
    options = ("-n", 2, *SERVERS[2:], "strategy.server_trains=false", f"--inject=kill:{rank}@17")
    hurt = train(tmp_path, "hurt", blobs, *options)
    assert len(lost(hurt)) == 1
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)


def test_a_job_that_loses_a_slice_goes_on_from_its_newest_checkpoint(calm, blobs, tmp_path):
    options = (*SERVERS, "--inject=kill:1@17")
    told = "no rank that is left holds a whole state (lost: rank 1 on "
    hurt = train(tmp_path, "hurt", blobs, *options, told=told)
    assert len(result(hurt)["restarts"]) == 1
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)
