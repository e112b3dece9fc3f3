"""Compressed gradients: equal on all ranks, near the exact ones, resumed on any number of ranks."""

import functools
import math

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train import Trainer
from hpc_train.comm import COMPRESSORS, Comm, Matrix, Terms, compressed
from hpc_train.config import load
from hpc_train.errors import ConfigError, UsageError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import DIGITS, distance, shared_dir, train

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD
RANK, SIZE = WORLD.rank, WORLD.size
NAMES = sorted(set(COMPRESSORS) - {"none"})
# how far 50 steps with momentum may lead from those without compression, norm-wise
TOLERANCE = {"fp16": 1e-3, "bf16": 1e-2, "topk": 0.3, "powersgd": 0.3}
NODES = {
    "one": lambda rank: "a",
    "blocks": lambda rank: str(rank // 2),
    "cyclic": lambda rank: str(rank % 2),
    "uneven": lambda rank: str(max(0, rank - 2)),
}
LAYOUT = [Matrix(0, (40, 30)), Matrix(1200, (1, 33)), Matrix(1280, (60, 50))]
LENGTH = 4288


@functools.cache
def connected(nodes):
    return Comm(MPI, WORLD, key=NODES[nodes](RANK))


def values(rank, turn):
    random = np.random.default_rng([rank, turn])
    return torch.from_numpy(random.standard_normal(LENGTH)) * (rank != 1)  # one has no share


@pytest.mark.parametrize("place", ["private", "shared"])
@pytest.mark.parametrize("nodes", sorted(NODES))
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_on_the_way(name, nodes, place):
    comm = connected(nodes)
    private = torch.empty(LENGTH, dtype=torch.float64)
    buffer = private if place == "private" else comm.allocate(LENGTH, torch.float64)
    operation = compressed(comm, buffer, LAYOUT, Terms(name, density=0.05))
    given = torch.zeros_like(private)
    sent = torch.zeros_like(private)
    for turn in range(3):
        given += sum(values(rank, turn) for rank in range(SIZE))
        buffer.copy_(values(RANK, turn))
        comm.meet()
        operation.launch()
        operation.finish()
        operation.commit()
        sent += buffer
        found = WORLD.allgather(buffer.numpy().tobytes())
        agree(all(bits == found[0] for bits in found), "ranks hold different sums")
        comm.meet()
    owed = torch.zeros_like(private)
    operation.owed(owed)
    owed = torch.from_numpy(comm.sum(owed.numpy()))
    agree(torch.allclose(sent + owed, given, atol=1e-10), (sent + owed - given).abs().max())
    if SIZE > 1 and comm.world.num_nodes > 1:
        agree((sent - given).abs().max() > 0, "nothing was compressed")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", NAMES)
def test_no_rank_is_special(name):
    """Ranks in reverse order find the same sums, but for the order of addition."""
    found = []
    for key in (RANK, -RANK):
        comm = Comm(MPI, WORLD.Split(0, key))
        buffer = values(RANK, 0).clone()
        operation = compressed(comm, buffer, LAYOUT, Terms(name, density=0.05))
        operation.launch()
        operation.finish()
        found.append(buffer.clone())
    far = float((found[0] - found[1]).norm() / found[0].norm())
    agree(far < {"fp16": 1e-3, "bf16": 1e-2}.get(name, 1e-12), far)


def settings(name, **more):
    return {
        "precision": {"dtype": "float64"},
        "comm": {"gradient_compression": name, "topk_density": 0.1},
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.5, "clip_norm": 5.0},
    } | more


def everywhere(found):
    """The vector that the first rank found, on every rank."""
    return np.array(WORLD.bcast(found[0] if found else None))


@pytest.mark.parametrize("name", NAMES)
def test_training_comes_near_what_it_is_without(name, tmp_path):
    folder = shared_dir(tmp_path)
    shares = {"schedule": {"shares": [1, 0, 2, 3][:SIZE]}} if SIZE > 1 else {}
    exact = train(SIZE, folder / "exact", **settings("none", **shares))[0]
    found = train(SIZE, folder / "run", **settings(name, **shares))[0]
    others = WORLD.allgather(found)
    agree(all(np.array_equal(other, found) for other in others), "ranks hold different weights")
    far = distance(found, exact)
    agree(far < (TOLERANCE[name] if SIZE > 1 else 1e-12), far)
    if SIZE > 1:
        agree(far > 0, "nothing was compressed")


def test_powersgd_is_the_same_on_any_number_of_ranks(tmp_path):
    folder = shared_dir(tmp_path)
    if SIZE < 3:
        pytest.skip("two numbers of ranks, each above 1, are to be compared")
    few = everywhere(train(2, folder / "few", **settings("powersgd")))
    many = train(SIZE, folder / "many", **settings("powersgd"))[0]
    agree(distance(many, few) < 1e-9, distance(many, few))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("name", ["topk", "powersgd"])
def test_a_run_resumes_with_what_was_not_sent(name, tmp_path):
    """PowerSGD sees the sum of residuals alone, so its resumed run is the uninterrupted one."""
    folder = shared_dir(tmp_path)
    given = settings(name)
    whole = everywhere(train(SIZE, folder / "whole", **given, run={"steps": 40}))
    train(SIZE, folder / "parts", **given, run={"steps": 20})
    resumed = train(SIZE, folder / "parts", resume=folder / "parts", **given, run={"steps": 40})
    far = distance(resumed[0], whole)
    agree(far < {"powersgd": 1e-10}.get(name, TOLERANCE[name]), far)
    alone = train(1, folder / "parts", resume=folder / "parts", **given, run={"steps": 60})
    agree(alone is None or np.isfinite(alone[0]).all())


@pytest.mark.mpi(min_size=2)
def test_a_gradient_that_is_not_finite_is_skipped_and_leaves_no_trace(tmp_path):
    """The last sample of the first batch cannot be fitted; without its step all is as ever."""
    folder = shared_dir(tmp_path)

    class Spoilt(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
            self.calls = 0

        def forward(self, x):
            self.calls += self.training
            out = self.body(x)
            # the loss is finite, its gradient is not
            return out + (out * 0).abs().sqrt() if self.calls == 3 and RANK == 1 else out

    found = {}
    for name in NAMES:
        torch.manual_seed(0)
        model = Spoilt().double()
        sections = {
            **settings(name, optimizer={"name": "sgd", "lr": 0.05, "non_finite": "skip"}),
            "data": DIGITS,
            "run": {"steps": 10, "dir": str(folder / name), "evaluate": "never"},
            "model": {"name": "mlp"},
            "device": {"threads": 1, "name": "cpu"},
        }
        config = load(None, sections=sections).config
        result = Trainer(model, config=config, comm=Comm(MPI, WORLD), quiet=True).fit()
        total = sum(float(p.detach().sum()) for p in model.parameters())
        found[name] = (result.step, math.isfinite(total))
    agree(all(step == 9 and finite for step, finite in found.values()), found)


def test_what_cannot_be_compressed_is_refused(tmp_path):
    folder = shared_dir(tmp_path)
    agree_raises(
        ConfigError,
        lambda: train(SIZE, folder / "run", **settings("bf16", strategy={"name": "local_sgd"})),
    )
    comm = connected("one")
    buffer = torch.zeros(5, dtype=torch.bfloat16)
    agree_raises(UsageError, lambda: compressed(comm, buffer, [], Terms("bf16")))


@pytest.mark.mpi(min_size=2)  # one rank has nobody to sum with
def test_auto_says_why(tmp_path, caplog):
    folder = shared_dir(tmp_path)
    with caplog.at_level("INFO", logger="hpc_train"):
        train(SIZE, folder / "run", **settings("auto", run={"steps": 2}))
    told = [r.getMessage() for r in caplog.records if "gradient_compression auto" in r.message]
    agree(
        RANK or told == ["comm.gradient_compression auto: none (all ranks are on one node)"], told
    )
