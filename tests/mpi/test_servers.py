"""Several servers that hold a slice of the weights each: the same training as with one of them."""

import numpy as np
import pytest
from mpi4py import MPI

from hpc_train.errors import ConfigError
from hpc_train.stop import StopFlag
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import distance, shared_dir, train
from tests.mpi.test_parameter_server import (
    STEPS,
    alone,
    records,
    server,
    settings,
    trained_after_a_rank_raised,
)

pytestmark = pytest.mark.mpi

RANK, SIZE = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
ADAM = {
    "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1, "clip_norm": 0.1},
    "learning_rate": {"name": "cosine", "warmup_steps": 5},
}


def servers(count=2, **options):
    return server(servers=count, **options)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("server_trains", [True, False])
@pytest.mark.parametrize("count", [2, 3])
def test_without_staleness_it_is_the_same_training(count, server_trains, tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder, **ADAM)
    run = settings(**ADAM, **servers(count, server_trains=server_trains))
    found = train(SIZE, folder / "all", **run | {"run": {"steps": STEPS, "evaluate": "11 steps"}})
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    one, all_ = records(folder / "alone"), records(folder / "all")
    told = [[(r["batch"], r["step"], r["delivered"]) for r in rows] for rows in (one, all_)]
    agree(told[0] == told[1], "other samples, or other steps")
    agree(RANK != 0 or found[1].staleness == {"0": STEPS}, found[1].staleness)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("staleness", [2, "unbounded"])
def test_stale_gradients_stay_within_their_bound_and_nothing_is_lost(staleness, tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder)
    found = train(SIZE, folder / "all", **settings(**servers(staleness=staleness)))
    agree(distance(found[0], reference) < 0.2, distance(found[0], reference))
    one, all_ = records(folder / "alone"), records(folder / "all")
    delivered = [sorted(r["delivered"] for r in rows) for rows in (one, all_)]
    agree(delivered[0] == delivered[1], "other samples")
    stale = [r["staleness"] for r in all_]
    agree(max(stale) <= (STEPS if staleness == "unbounded" else staleness), stale)
    weights = MPI.COMM_WORLD.bcast(found[0])
    agree(np.array_equal(weights, found[0]), "ranks hold other weights")


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("after", [server(), servers(SIZE), {}], ids=["one", "all", "allreduce"])
def test_a_checkpoint_is_taken_up_by_any_number_of_servers(after, tmp_path):
    folder = shared_dir(tmp_path)
    adam = {"optimizer": ADAM["optimizer"]}
    reference = alone(folder, **adam)
    begin = settings(**adam, **servers()) | {"run": {"steps": 13}}
    train(SIZE, folder / "parts", **begin)
    found = train(SIZE, folder / "parts", resume=folder / "parts", **settings(**adam, **after))
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))
    agree([r["step"] for r in records(folder / "parts")] == [*range(1, STEPS + 1)])


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("who", [0, SIZE - 1])
def test_a_rank_that_raises_ends_all_and_the_state_is_saved(who, tmp_path):
    folder = shared_dir(tmp_path)
    found = trained_after_a_rank_raised(who, settings(**servers()), folder)
    reference = alone(folder)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
def test_a_server_that_does_nothing_else_is_heard_as_well(tmp_path):
    folder = shared_dir(tmp_path)
    reference = alone(folder)
    stop = StopFlag()

    def asked(name, detail):
        if SIZE - 2 == RANK and name == "compute":
            stop.is_set = True
        return lambda: None

    # the last rank works, all others serve
    run = settings(**servers(SIZE - 1, server_trains=False))
    first = train(SIZE, folder / "run", hooks=[asked], stop=stop, **run)
    agree(first[1].status == "preempted", first[1].status)
    found = train(SIZE, folder / "run", resume=folder / "run", **run)
    agree(distance(found[0], reference) < 1e-10, distance(found[0], reference))


@pytest.mark.mpi(min_size=2)
def test_updates_that_are_not_finite_are_skipped(tmp_path):
    folder = shared_dir(tmp_path)
    skips = {"optimizer": {"name": "sgd", "lr": 0.02, "non_finite": "skip"}}
    run = settings(data={"scale": 1e308}, **servers(staleness=1)) | {"run": {"steps": 6}} | skips
    found = train(SIZE, folder / "skip", **run)
    agree(found[1].step == 0, found[1].step)
    agree(np.isfinite(found[0]).all(), "the weights are not finite")


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"optimizer": {"name": "lamb", "lr": 0.01}}, "every weight alike"),
        ({"regularization": {"max_norm": 2.0}}, "after every update"),
    ],
)
def test_what_needs_all_weights_is_refused(more, text, tmp_path):
    folder = shared_dir(tmp_path)
    run = settings(**servers()) | more
    error = agree_raises(ConfigError, lambda: train(SIZE, folder / "run", **run))
    agree(text in error.lines()[0], error.lines())
