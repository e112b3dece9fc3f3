"""Re-planning: a run whose shares change all the time is the run whose shares never do."""

import json
import random

import pytest
import torch
from mpi4py import MPI

from hpc_train.plan import Plan
from hpc_train.schedule import POLICIES, Scheduler
from hpc_train.train import step as step_module
from hpc_train.world import RankError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import distance, shared_dir, train

pytestmark = [pytest.mark.mpi(min_size=2)]

SIZE = MPI.COMM_WORLD.size
DOUBLE = {"precision": {"dtype": "float64"}}


def at_random(monkeypatch):
    """Let the scheduler announce random shares every few batches, zeros among them."""
    dice = random.Random(SIZE)

    def decide(self, batch):
        if dice.random() < 0.6:
            return None
        cuts = sorted(dice.choices(range(65), k=SIZE - 1))
        self.plan = Plan(tuple(b - a for a, b in zip([0, *cuts], [*cuts, 64], strict=True)), batch)
        return self.plan

    monkeypatch.setattr(Scheduler, "decide", decide)


def steps(run):
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record["kind"] == "step"]


@pytest.mark.parametrize("model", ["smooth", "digits-cnn"])
def test_replanned_at_random_equals_fixed_shares(model, tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)
    fixed = train(SIZE, folder / "fixed", model=model, **DOUBLE)
    at_random(monkeypatch)
    found = train(SIZE, folder / "random", model=model, **DOUBLE)
    agree(distance(found[0], fixed[0]) < 1e-10, distance(found[0], fixed[0]))
    if MPI.COMM_WORLD.rank == 0:
        told = steps(folder / "random")
        shares = {tuple(r["before"]["counts"]) for r in told if "before" in r}
        delivered = [r["delivered"] for r in told] == [
            r["delivered"] for r in steps(folder / "fixed")
        ]
    else:
        shares, delivered = {1, 2, 3, 4, 5, 6}, True
    agree(len(shares) > 5, shares)
    agree(delivered, "other samples were delivered")


def test_resumed_while_replanning_equals_uninterrupted(tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)
    whole = train(SIZE, folder / "whole", **DOUBLE)
    at_random(monkeypatch)
    train(SIZE, folder / "parts", run={"steps": 30}, **DOUBLE)
    found = train(SIZE, folder / "parts", resume=folder / "parts", run={"steps": 50}, **DOUBLE)
    agree(distance(found[0], whole[0]) < 1e-10, distance(found[0], whole[0]))


@pytest.mark.parametrize("policy", [name for name in POLICIES if name != "static"])
def test_every_policy_trains_the_same(policy, tmp_path):
    folder = shared_dir(tmp_path)
    fixed = train(SIZE, folder / "static", **DOUBLE)
    found = train(
        SIZE, folder / policy, schedule={"policy": policy}, data={"micro_batch_size": 8}, **DOUBLE
    )
    agree(distance(found[0], fixed[0]) < 1e-10, distance(found[0], fixed[0]))
    rows = found[1].ranks
    agree(sum(row["share"] for row in rows) == pytest.approx(1.0), rows)


@pytest.mark.parametrize("strategy", ["allreduce", "local_sgd", "parameter_server"])
def test_a_rank_without_memory_goes_on_in_smaller_parts(strategy, tmp_path, monkeypatch):
    """The gradient is the same, nobody hangs, and the other ranks change nothing."""
    folder = shared_dir(tmp_path)
    same = {"schedule": {"policy": "static"}, "strategy": {"name": strategy}, **DOUBLE}
    fixed = train(SIZE, folder / "fixed", model="digits-cnn", **same)
    plain, refused, calls = step_module.losses_of, [], []

    def scarce(phase, model, batch):
        """Short of memory for large parts, and at last in a later part of a share."""
        if MPI.COMM_WORLD.rank == SIZE - 1:
            calls.append(len(batch))
            if len(batch) > 5 or (len(batch) > 2 and calls[-3:-1] == [len(batch)] * 2):
                refused.append(len(batch))
                raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(phase, model, batch)

    monkeypatch.setattr(step_module, "losses_of", scarce)
    found = train(SIZE, folder / "scarce", model="digits-cnn", **same)
    agree(distance(found[0], fixed[0]) < 1e-10, distance(found[0], fixed[0]))
    agree(bool(refused) == (MPI.COMM_WORLD.rank == SIZE - 1), refused)


def test_a_sample_that_does_not_fit_ends_the_run_on_all_ranks(tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)

    def nothing(phase, model, batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    if MPI.COMM_WORLD.rank == SIZE - 1:
        monkeypatch.setattr(step_module, "losses_of", nothing)
    error = agree_raises(RankError, lambda: train(SIZE, folder / "none"))
    agree("memory for forward and backward of a single sample" in str(error), error)
