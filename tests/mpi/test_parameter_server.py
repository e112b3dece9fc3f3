"""Rank 0 as parameter server: without staleness the same training, with it a bounded difference."""

import json
import time

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.errors import ConfigError
from hpc_train.stop import StopFlag
from hpc_train.world import RankError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi

RANK, SIZE = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
STEPS = 30


def server(**options):
    return {"strategy": {"name": "parameter_server", "timeout": "60 seconds"} | options}


def settings(**more):
    return {
        "precision": {"dtype": "float64"},
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5, "clip_norm": 1.0},
        "run": {"steps": STEPS},
    } | more


def alone(folder, **more):
    found = train(1, folder / "alone", **settings(**more))
    return np.array(MPI.COMM_WORLD.bcast(found[0] if found else None))


def records(run, kind="step"):
    """On every rank, as rank 0 reads them."""
    rows = None
    if RANK == 0:
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in MPI.COMM_WORLD.bcast(rows) if row["kind"] == kind]


@pytest.mark.parametrize("server_trains", [True, False])
@pytest.mark.parametrize("policy", ["static", "min_finish_time"])
def test_without_staleness_it_is_the_same_training(server_trains, policy, tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder)
    found = train(
        SIZE,
        folder / "all",
        schedule={"policy": policy},
        **settings(**server(server_trains=server_trains)),
    )
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    one, all_ = records(folder / "alone"), records(folder / "all")
    told = [[(r["batch"], r["step"], r["delivered"]) for r in rows] for rows in (one, all_)]
    agree(told[0] == told[1], "other samples, or other steps")
    agree(RANK != 0 or found[1].staleness == {"0": STEPS}, found[1].staleness)


@pytest.mark.mpi(min_size=2)
def test_adam_weights_penalties_and_averages_are_the_same_too(tmp_path):
    folder = shared_dir(tmp_path)
    more = {
        "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1},
        "task": {"name": "classification", "class_weights": [1, 2, 3, 4, 5, 0.5, 0, 1, 1, 9]},
        "regularization": {"l2": 0.01, "max_norm": 2.0},
        "learning_rate": {"name": "cosine", "warmup_steps": 5},
    }
    reference = alone(folder, **more)
    found = train(SIZE, folder / "all", **settings(**more, **server()))
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("staleness", [1, 3, "unbounded"])
def test_stale_gradients_stay_within_their_bound_and_nothing_is_lost(staleness, tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder)
    found = train(SIZE, folder / "all", **settings(**server(staleness=staleness, damping=0.1)))
    far = distance(found[0], reference)
    agree(0 < far < 0.2, far)  # not the same, not far off either
    one, all_ = records(folder / "alone"), records(folder / "all")
    delivered = [sorted(r["delivered"] for r in rows) for rows in (one, all_)]
    agree(delivered[0] == delivered[1], "other samples")
    stale = [r["staleness"] for r in all_]
    agree(max(stale) <= (STEPS if staleness == "unbounded" else staleness), stale)
    agree(RANK != 0 or sum(found[1].staleness.values()) == STEPS, found[1].staleness)
    result = found[1]
    in_steps = STEPS * 64 / result.samples_per_second if RANK == 0 else 0.0
    agree(in_steps <= result.seconds, (in_steps, result.seconds))
    weights = MPI.COMM_WORLD.bcast(found[0])
    agree(np.array_equal(weights, found[0]), "ranks hold other weights")


@pytest.mark.mpi(min_size=2)
def test_resumed_in_mid_epoch_equals_uninterrupted(tmp_path):
    folder = shared_dir(tmp_path)
    adam = {"optimizer": {"name": "adamw", "lr": 0.01}}
    reference = alone(folder, **adam)
    parts = settings(**adam, **server())
    train(SIZE, folder / "parts", **parts | {"run": {"steps": 13}})
    found = train(SIZE, folder / "parts", resume=folder / "parts", **parts)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    agree([r["step"] for r in records(folder / "parts")] == [*range(1, STEPS + 1)])


def trained_after_a_rank_raised(who, run, folder):
    """What a run gives that rank `who` ended in batch 9, and that then went on."""

    def raises(name, detail):  # whoever is free gets a range: not every rank has one of each batch
        if who == RANK and name == "compute" and detail["batch"] >= 9:
            raise RuntimeError("broken on purpose")
        return lambda: None

    error = agree_raises(RankError, lambda: train(SIZE, folder / "run", hooks=[raises], **run))
    agree(f"rank {who}" in error.lines()[0], error.lines())
    MPI.COMM_WORLD.Barrier()
    found = train(SIZE, folder / "run", resume=folder / "run", **run)
    agree(found[1].step == STEPS, found[1].step)
    agree([r["batch"] for r in records(folder / "run")] == [*range(1, STEPS + 1)])
    return found


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("staleness", [0, 2])
def test_a_rank_that_raises_ends_all_and_the_state_is_saved(who, staleness, tmp_path):
    folder = shared_dir(tmp_path)
    run = settings(**server(staleness=staleness))
    found = trained_after_a_rank_raised(who, run, folder)
    if staleness == 0:
        reference = alone(folder)
        agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
def test_a_run_that_is_asked_to_leave_saves_and_goes_on(tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder)
    stop = StopFlag()

    def asked(name, detail):
        if RANK == 1 and name == "compute" and detail["batch"] >= 11:
            stop.is_set = True
        return lambda: None

    run = settings(**server())
    first = train(SIZE, folder / "run", hooks=[asked], stop=stop, **run)
    agree(first[1].status == "preempted", first[1].status)
    agree(0 < first[1].step < STEPS, first[1].step)
    found = train(SIZE, folder / "run", resume=folder / "run", **run)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
def test_an_update_that_is_not_finite_ends_all_or_is_skipped(tmp_path):
    folder = shared_dir(tmp_path)
    run = settings(data={"scale": 1e308}, **server(staleness=1)) | {"run": {"steps": 6}}
    error = agree_raises(RankError, lambda: train(SIZE, folder / "stop", **run))
    agree("loss must be finite" in error.lines()[0], error.lines())
    MPI.COMM_WORLD.Barrier()
    skips = run | {"optimizer": {"name": "sgd", "lr": 0.02, "non_finite": "skip"}}
    found = train(SIZE, folder / "skip", **skips)
    agree(found[1].step == 0, found[1].step)
    agree(np.isfinite(found[0]).all(), "the weights are not finite")
    agree(len(records(folder / "skip", "event")) == 6, records(folder / "skip", "event"))


@pytest.mark.mpi(min_size=2)
def test_saves_by_the_clock_and_evaluations_in_between(tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder)
    found = train(
        SIZE,
        folder / "run",
        **settings(**server(staleness=0))
        | {
            "run": {"steps": STEPS, "evaluate": "7 steps"},
            "checkpoint": {"every": "1 seconds", "keep_best": "max accuracy"},
            "data": {"validation": "builtin:digits/test[:97]"},
        },
    )
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    agree(len(records(folder / "run", "evaluation")) == 5, records(folder / "run", "evaluation"))


@pytest.mark.mpi(min_size=2)
def test_a_slow_rank_holds_others_back_only_where_they_wait_for_it(tmp_path):
    folder = shared_dir(tmp_path)

    def sleepy(name, detail):
        begun = name == "compute"
        return lambda: time.sleep(0.06 if RANK == 1 else 0.002) if begun else None

    def seconds(**options):
        run = settings(**server(**options)) | {"run": {"steps": 12}}
        result = train(SIZE, folder / str(options), hooks=[sleepy], **run)[1]
        return 12 * 64 / result.samples_per_second if RANK == 0 else 1.0

    waits, goes_on = seconds(staleness=0), seconds(staleness="unbounded")
    agree(RANK != 0 or goes_on < 0.75 * waits, (waits, goes_on))


def test_what_needs_all_ranks_in_every_step_is_refused(tmp_path):
    folder = shared_dir(tmp_path)
    run = settings(**server()) | {"precision": {"dtype": "float32", "autocast": "float16"}}
    error = agree_raises(ConfigError, lambda: train(SIZE, folder / "run", **run))
    agree("float16" in error.lines()[0], error.lines())
