"""Samples that go to whoever is free: each of them once, and weights are those of fixed shares."""

import json
import random
import time

import pytest
from mpi4py import MPI

from hpc_train.comm import Comm, open_counter
from hpc_train.comm.counter import Asked, InMemory
from hpc_train.train import step as step_module
from hpc_train.world import RankError
from tests.mpi.agree import agree, agree_raises
from tests.mpi.runs import MODELS, distance, shared_dir, train

pytestmark = [pytest.mark.mpi(min_size=2)]

SIZE, RANK = MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank
DYNAMIC = {"schedule": {"policy": "dynamic"}, "precision": {"dtype": "float64"}}
STATIC = {"schedule": {"policy": "static"}, "precision": {"dtype": "float64"}}
SHORT = {"run": {"steps": 25}}  # beyond the end of an epoch
WAYS = ["memory", "thread", "alone"]

# each of these trains several times: once is enough
three = pytest.mark.skipif(SIZE != 3, reason="needs three ranks")


def let_ranks_meet(monkeypatch, way):
    """In the memory of one node; or on nodes that are made up, with or without a thread."""
    if way != "memory":
        monkeypatch.setattr("hpc_train.comm.communicator.host_key", lambda: f"n{RANK}/boot")
        monkeypatch.setattr("hpc_train.comm.counter.lets_threads", lambda comm: way == "thread")


@pytest.mark.parametrize("way", WAYS)
def test_every_number_is_taken_once_in_every_round(way, monkeypatch):
    let_ranks_meet(monkeypatch, way)
    comm = Comm(MPI, MPI.COMM_WORLD)
    counter = open_counter(comm)
    agree(isinstance(counter, InMemory if way == "memory" else Asked), type(counter))
    dice = random.Random(RANK)
    for round_ in range(1, 40):
        total = round_ % 12
        counter.begin(round_)
        mine = []
        # the first rank takes whatever is left, as the fastest one does
        least = 1 if round_ % SIZE == RANK else dice.randint(1, 4)
        while (number := counter.take(round_, total, least)) is not None:
            mine.append(number)
            time.sleep(dice.choice([0, 0, 0.001]))
        counter.settle()
        taken = sorted(n for some in MPI.COMM_WORLD.allgather(mine) for n in some)
        agree(taken == list(range(total)), taken)
    counter.close()


@pytest.mark.parametrize("way", WAYS)
def test_who_leaves_a_round_or_comes_late_keeps_nobody_waiting(way, monkeypatch):
    let_ranks_meet(monkeypatch, way)
    counter = open_counter(Comm(MPI, MPI.COMM_WORLD))
    mine, late = [], SIZE - 1
    counter.begin(1)
    total = 0 if late == RANK else 5
    while (number := counter.take(1, total)) is not None:
        mine.append(number)
    counter.settle()
    taken = sorted(n for some in MPI.COMM_WORLD.allgather(mine) for n in some)
    agree(taken == [0, 1, 2, 3, 4], taken)
    counter.close()


def disturb(monkeypatch):
    """Let ranks need a little longer now and then, each at other times."""
    dice, plain = random.Random(RANK), step_module.losses_of

    def losses_of(phase, model, batch):
        time.sleep(dice.choice([0, 0, 0, 0.002]))
        return plain(phase, model, batch)

    monkeypatch.setattr(step_module, "losses_of", losses_of)


def steps(folder):
    """The steps that rank 0 recorded, on every rank."""
    found = None
    if RANK == 0:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        found = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    return MPI.COMM_WORLD.bcast(found)


@three
def test_whoever_computes_what_the_weights_are_the_same(tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)
    fixed = train(SIZE, folder / "fixed", **SHORT, **STATIC)
    plain = steps(folder / "fixed")
    disturb(monkeypatch)
    for way, micro in (("memory", 4), ("thread", None), ("alone", 4)):
        let_ranks_meet(monkeypatch, way)
        more = {"data": {"micro_batch_size": micro}} if micro else {}
        found = train(SIZE, folder / way, **SHORT, **DYNAMIC, **more)
        agree(distance(found[0], fixed[0]) < 1e-10, (way, distance(found[0], fixed[0])))
        told = steps(folder / way)
        agree([r["delivered"] for r in told] == [r["delivered"] for r in plain], "other samples")
        claimed = [sum(r["claimed"]["counts"]) for r in told if "claimed" in r]
        counts = [sum(r["before"]["counts"]) for r in told if "before" in r]
        agree(len(claimed) == len(told) - 1, claimed)
        agree(max(counts) == 64, counts)
        least = [size // 5 - SIZE for size in counts]  # a rank keeps one sample of its own
        agree(all(low <= n <= 64 // 5 for n, low in zip(claimed, least, strict=True)), claimed)
        rows = found[1].ranks
        agree(sum(row["share"] for row in rows) == pytest.approx(1.0), rows)


@three
def test_two_players_mixed_samples_and_dropout_are_the_same(tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)
    gan = {
        "model": {"name": "dcgan", "latent_size": 6, "channels": [8, 4]},
        "task": {"name": "adversarial", "loss": "wgan-gp", "critic_steps": 3},
        "data": {"batch_size": 16, "targets": None, "train": "builtin:digits/train[:40]"},
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "run": {"steps": 5},
    }
    mixed = {
        "model": {**MODELS["smooth"], "dropout": 0.5},
        "regularization": {"mixup": 0.4, "dropout": 0.3},
        "augmentation": [{"name": "rotation"}],
        "run": {"steps": 12},
    }
    disturb(monkeypatch)
    for name, settings in (("gan", gan), ("mixed", mixed)):
        fixed = train(SIZE, folder / f"{name}-fixed", **settings, **STATIC)
        found = train(SIZE, folder / name, **settings, **DYNAMIC)
        agree(distance(found[0], fixed[0]) < 1e-10, (name, distance(found[0], fixed[0])))


@three
def test_resumed_among_claims_equals_uninterrupted(tmp_path, monkeypatch):
    folder = shared_dir(tmp_path)
    whole = train(SIZE, folder / "whole", **SHORT, **STATIC)
    disturb(monkeypatch)
    train(SIZE, folder / "parts", run={"steps": 7}, **DYNAMIC)
    found = train(SIZE, folder / "parts", resume=folder / "parts", **SHORT, **DYNAMIC)
    agree(distance(found[0], whole[0]) < 1e-10, distance(found[0], whole[0]))


@pytest.mark.parametrize(
    ("way", "who"), [("memory", 1), ("thread", 0), ("thread", 1), ("alone", 0), ("alone", 1)]
)
def test_an_error_in_the_middle_of_claims_ends_the_run_on_all_ranks(
    way, who, tmp_path, monkeypatch
):
    let_ranks_meet(monkeypatch, way)
    plain, calls = step_module.losses_of, []

    def broken(phase, model, batch):
        calls.append(len(batch))
        if who == RANK and len(calls) > 5:
            raise ValueError("broken on purpose")
        return plain(phase, model, batch)

    monkeypatch.setattr(step_module, "losses_of", broken)
    error = agree_raises(RankError, lambda: train(SIZE, shared_dir(tmp_path) / "run", **DYNAMIC))
    agree("broken on purpose" in str(error), error)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("strategy", {"name": "local_sgd"}),
        ("comm", {"overlap": True}),
        ("data", {"on_error": "skip"}),
    ],
)
def test_what_does_not_go_with_claims_is_refused(section, value, tmp_path):
    folder = shared_dir(tmp_path)
    error = agree_raises(
        Exception, lambda: train(SIZE, folder / "run", **{section: value}, **DYNAMIC)
    )
    agree('schedule.policy = "dynamic"' in str(error), error)
