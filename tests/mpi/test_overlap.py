"""Gradients summed behind the backward pass: equal to plain training, and nobody waits for ever."""

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train import Trainer
from hpc_train.comm import Comm
from hpc_train.config import load
from hpc_train.errors import ConfigError
from hpc_train.world import RankError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import DIGITS, distance, shared_dir, train
from tests.mpi.test_gan import SETTINGS as GAN

pytestmark = pytest.mark.mpi

WORLD = MPI.COMM_WORLD
RANK, SIZE = WORLD.rank, WORLD.size
SPLITS = {1: [1], 2: [1, 0], 3: [5, 0, 2], 4: [0, 1, 0, 7]}


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch):
    """The networks of tests are small: let each have several buckets."""
    monkeypatch.setattr("hpc_train.strategies.reduction.BUCKET_BYTES", 4096)
    monkeypatch.setattr("hpc_train.strategies.reduction.SMALL_BYTES", 1024)


def settings(overlap, **comm):
    return {
        "precision": {"dtype": "float64"},
        "comm": {"overlap": overlap} | comm,
        "optimizer": {"name": "sgd", "lr": 0.05, "momentum": 0.5, "clip_norm": 5.0},
        "schedule": {"shares": SPLITS[SIZE]},
        "data": {"micro_batch_size": 10},
        "run": {"steps": 20},
    }


@pytest.mark.parametrize("collective", ["auto", "native", "ring", "shared", "hierarchical"])
def test_overlap_changes_nothing_whatever_sums(collective, tmp_path):
    """Among the ranks are some without samples; a step has several micro-batches."""
    folder = shared_dir(tmp_path)
    plain = train(SIZE, folder / "plain", **settings(overlap=False, collective=collective))[0]
    found = train(SIZE, folder / "run", **settings(overlap=True, collective=collective))[0]
    agree(distance(found, plain) < 1e-10, distance(found, plain))


@pytest.mark.parametrize("name", ["bf16", "powersgd"])
def test_compressed_gradients_can_be_overlapped(name, tmp_path):
    folder = shared_dir(tmp_path)
    compress = {"gradient_compression": name}
    plain = train(SIZE, folder / "plain", **settings(overlap=False, **compress))[0]
    found = train(SIZE, folder / "run", **settings(overlap=True, **compress))[0]
    # bf16 cuts what it rounds in other parts
    far = distance(found, plain)
    agree(far < (1e-10 if name == "powersgd" else 2e-2), far)


class Net(torch.nn.Module):
    """One layer is used twice, one never, one now and then; one rank may fail in backward."""

    def __init__(self, *, fails=False):
        super().__init__()
        self.first = torch.nn.Linear(64, 32)
        self.twice = torch.nn.Linear(32, 32)
        self.never = torch.nn.Linear(32, 32)
        self.rarely = torch.nn.Linear(32, 32)
        self.last = torch.nn.Linear(32, 10)
        self.fails = fails
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        x = self.first(x.flatten(1)).tanh()
        if self.fails and self.calls == 8:
            x = Broken.apply(x)
        x = self.twice(self.twice(x).tanh())
        if self.calls % 3 == 0:
            x = x + self.rarely(x)
        return self.last(x)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        raise RuntimeError("broken in the middle of backward")


def trainer(folder, model, overlap, shares):
    sections = {
        **settings(overlap),
        "schedule": {"shares": shares},
        "data": DIGITS | {"micro_batch_size": None},
        "run": {"steps": 12, "dir": str(folder), "evaluate": "never"},
        "model": {"name": "mlp"},
        "device": {"threads": 1, "name": "cpu"},
    }
    config = load(None, sections=sections).config
    return Trainer(model, config=config, comm=Comm(MPI, WORLD), quiet=True)


def network(**more):
    torch.manual_seed(0)
    return Net(**more).double()


def test_unused_rarely_used_and_twice_used_parameters(tmp_path):
    folder = shared_dir(tmp_path)
    found = {}
    for overlap in (False, True):
        model = network()
        trainer(folder / str(overlap), model, overlap, [1] * SIZE).fit()
        found[overlap] = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
    far = distance(found[True], found[False])
    agree(far < 1e-10, far)
    others = WORLD.allgather(found[True])
    agree(all(np.array_equal(other, found[True]) for other in others), "weights differ")


def test_a_rank_that_fails_in_the_middle_of_backward_takes_all_along(tmp_path):
    folder = shared_dir(tmp_path)
    model = network(fails=RANK == SIZE - 1)
    made = trainer(folder, model, True, [1] * SIZE)
    error = agree_raises(RankError, made.fit)
    agree("broken in the middle of backward" in str(error), error)
    agree(RANK or list((folder / "checkpoints").iterdir()), "the state before was not saved")


def test_phases_share_a_thread(tmp_path):
    """The two networks of a GAN get gradients in each other's phases, which do not count."""
    folder = shared_dir(tmp_path)
    found = {}
    for overlap in (False, True):
        given = {**GAN, "comm": {"overlap": overlap}, "run": {"steps": 6}}
        found[overlap] = train(SIZE, folder / str(overlap), **given)[0]
    far = distance(found[True], found[False])
    agree(far < 1e-9, far)


@pytest.mark.mpi(min_size=2)
def test_auto_tries_both_ways_between_nodes_and_agrees(tmp_path, monkeypatch, caplog):
    folder = shared_dir(tmp_path)
    monkeypatch.setattr("hpc_train.comm.communicator.host_key", lambda: f"node{RANK % 2}/boot")
    given = settings("auto") | {"run": {"steps": 30}}
    with caplog.at_level("INFO", logger="hpc_train"):
        found = train(SIZE, folder / "run", **given)[0]
    told = [r.getMessage() for r in caplog.records if "comm.overlap auto: " in r.getMessage()]
    agree(RANK or len(told) == 1, told)
    monkeypatch.undo()
    plain = train(SIZE, folder / "plain", **settings(overlap=False) | {"run": {"steps": 30}})[0]
    agree(distance(found, plain) < 1e-10, distance(found, plain))


def test_other_strategies_refuse_it(tmp_path):
    folder = shared_dir(tmp_path)
    given = settings(overlap=True) | {"strategy": {"name": "local_sgd"}}
    agree_raises(ConfigError, lambda: train(SIZE, folder / "run", **given))
