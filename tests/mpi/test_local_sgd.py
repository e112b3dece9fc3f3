"""Local SGD: synchronous training where a round is one batch, and equal ranks after every round."""

import json

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.errors import ConfigError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

RANK, SIZE = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
STEPS = 24


def settings(*, lr=0.02, momentum=0.0, run=None, **strategy):
    return {
        "precision": {"dtype": "float64"},
        "optimizer": {"name": "sgd", "lr": lr, "momentum": momentum},
        "run": {"steps": STEPS} | (run or {}),
        "strategy": {"name": "local_sgd"} | strategy,
    }


def synchronous(folder, **more):
    """The weights of one rank alone, on every rank."""
    given = settings(**more)
    del given["strategy"]
    found = train(1, folder / "alone", **given)
    return np.array(MPI.COMM_WORLD.bcast(found[0] if found else None))


def equal_everywhere(weights):
    others = MPI.COMM_WORLD.allgather(weights)
    return all(np.array_equal(other, weights) for other in others)


@pytest.mark.parametrize("shares", [None, [1, 3, 2, 2]])
def test_rounds_of_one_batch_are_synchronous_training(shares, tmp_path):
    folder = shared_dir(tmp_path)
    reference = synchronous(folder)
    plan = {"shares": shares[:SIZE]} if shares else {}
    found = train(SIZE, folder / "all", schedule=plan, **settings(period=1))
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


def test_the_synchronous_beginning_is_exact_with_any_optimizer(tmp_path):
    folder = shared_dir(tmp_path)
    reference = synchronous(folder, momentum=0.5)
    found = train(SIZE, folder / "all", **settings(momentum=0.5, period=4, synchronous_steps=STEPS))
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


def test_ranks_of_one_node_that_update_together_are_synchronous(tmp_path):
    folder = shared_dir(tmp_path)
    reference = synchronous(folder, momentum=0.5)
    found = train(
        SIZE, folder / "all", **settings(momentum=0.5, period=5, within_node="synchronous")
    )
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("outer_momentum", [0.0, 0.3])
def test_longer_rounds_differ_learn_and_leave_equal_weights(outer_momentum, tmp_path):
    folder = shared_dir(tmp_path)
    reference = synchronous(folder, lr=0.1, run={"steps": 60})
    found = train(
        SIZE,
        folder / "all",
        **settings(lr=0.1, period=5, outer_momentum=outer_momentum, run={"steps": 60}),
    )
    agree(equal_everywhere(found[0]), "weights differ between ranks")
    agree(1e-8 < distance(found[0], reference) < 0.5, distance(found[0], reference))
    if RANK == 0:
        lines = (folder / "all" / "metrics.jsonl").read_text().splitlines()
        losses = [row["loss"] for row in map(json.loads, lines) if row["kind"] == "step"]
    first, last = MPI.COMM_WORLD.bcast((losses[0], losses[-1]) if RANK == 0 else None)
    agree(last < 0.9 * first, (first, last))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_run_equals_one_that_saved_and_went_on(optimizer, tmp_path):
    """Saving ends a round, so both save in the same steps; one of them is split there."""
    folder = shared_dir(tmp_path)
    kind = {"name": optimizer, "lr": 0.01} | ({"momentum": 0.5} if optimizer == "sgd" else {})
    same = settings(period=5, outer_momentum=0.3) | {
        "optimizer": kind,
        "checkpoint": {"every": "12 steps"},
        "schedule": {"policy": "static"},  # a round depends on who has which samples
    }
    whole = train(SIZE, folder / "whole", **same)
    train(SIZE, folder / "parts", **(same | {"run": {"steps": 12}}))
    parts = train(SIZE, folder / "parts", resume=folder / "parts", **same)
    agree(equal_everywhere(parts[0]), "weights differ between ranks")
    agree(distance(parts[0], whole[0]) < 1e-10, distance(parts[0], whole[0]))


@pytest.mark.mpi(min_size=2)
def test_the_mean_is_weighted_by_samples_and_ranks_without_any_follow(tmp_path):
    folder = shared_dir(tmp_path)
    reference = synchronous(folder, momentum=0.5)
    shares = [1] + [0] * (SIZE - 1)
    found = train(
        SIZE, folder / "all", schedule={"shares": shares}, **settings(momentum=0.5, period=5)
    )
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


def test_averages_over_time_are_refused(tmp_path):
    folder = shared_dir(tmp_path)
    error = agree_raises(
        ConfigError,
        lambda: train(SIZE, folder / "all", regularization={"ema_decay": 0.9}, **settings()),
    )
    agree("cannot average weights over time" in str(error), str(error))
