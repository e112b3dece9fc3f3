"""Sums that lie once in a node: every rank makes the update from them, and they stay whole."""

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train.comm import Comm
from hpc_train.optim import OPTIMIZERS, Settings
from hpc_train.schedule import Scheduler, Situation, find_policy
from hpc_train.strategies import AllReduce, Layout, Learner, Means, Sharding, Tally, allreduce
from tests.mpi.agree import agree
from tests.mpi.runs import distance

pytestmark = pytest.mark.mpi(min_size=2)

# every optimizer, on two and three ranks; four are as good
each = pytest.mark.skipif(MPI.COMM_WORLD.size > 3, reason="all optimizers, on two and three ranks")

SIZE, RANK = MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank
SETTINGS = Settings(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)


class Trained:
    """Two networks, trained in turn by an update of the whole, with given gradients."""

    def __init__(self, optimizer, *, key=None, clip=0.5):
        torch.manual_seed(0)
        self.comm = Comm(MPI, MPI.COMM_WORLD, key)
        self.models = [torch.nn.Linear(50, 301).double(), torch.nn.Linear(60, 301).double()]
        self.learners = [
            Learner(name, list(model.named_parameters()), optimizer, SETTINGS, clip)
            for name, model in zip("ab", self.models, strict=True)
        ]
        scheduler = Scheduler(
            find_policy("static"), Situation.unknown(8 * SIZE, SIZE, None, 1), 100
        )
        self.strategy = AllReduce(
            self.comm,
            torch.nn.ModuleList(self.models),
            self.learners,
            Layout([], SIZE),
            scheduler,
            Means("auto"),
            sharding=Sharding(False),
        )

    @property
    def reads_once(self):
        return all(self.strategy._reading(learner) is not None for learner in self.learners)

    def step(self, number, place=0, scale=1.0, flags=(), *, begins=True):
        learner, model = self.learners[place], self.models[place]
        if begins:
            self.strategy.begin(learner)
            rng = np.random.default_rng([number, RANK])
            batch = torch.from_numpy(rng.standard_normal((3, model.in_features))) * scale
            # another network takes part in the backward pass, as in adversarial training
            sum(
                (one(batch[:, : one.in_features]) ** 2).sum() for one in self.models[: place + 1]
            ).backward()
            learner.gather()
        return self.strategy.finish(learner, Tally(weight=RANK + 1.0, flags=set(flags)))

    def weights(self):
        return torch.cat(
            [p.detach().reshape(-1) for model in self.models for p in model.parameters()]
        ).numpy()


def both(optimizer, monkeypatch, **how):
    """The same training with sums in the buffers of all ranks, and in one place."""
    monkeypatch.setattr(allreduce, "_ONCE_BYTES", 2**40)
    one = Trained(optimizer, **how)
    monkeypatch.setattr(allreduce, "_ONCE_BYTES", 1)
    other = Trained(optimizer, **how)
    agree(not one.reads_once and other.reads_once)
    return one, other


@each
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_the_update_is_that_of_sums_in_place(optimizer, monkeypatch):
    one, other = both(optimizer, monkeypatch)
    for number in range(3):
        for place in (0, 1):
            a, b = one.step(number, place), other.step(number, place)
            agree(a.updated and b.updated and abs(a.norm / b.norm - 1) < 1e-12, (a.norm, b.norm))
            here, there = (t.learners[place].arenas[0].grad for t in (one, other))
            agree(distance(there.numpy(), here.numpy()) < 1e-12, "the sum as techniques see it")
    far = distance(other.weights(), one.weights())
    agree(far < 1e-10, far)
    agree(len(set(MPI.COMM_WORLD.allgather(other.weights().tobytes()))) == 1, "replicas drift")


@each
@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
def test_no_optimizer_writes_to_the_sum_that_others_read(optimizer, monkeypatch):
    _, trained = both(optimizer, monkeypatch)
    arena = trained.learners[0].arenas[0]
    make = trained.learners[0].step
    kept = []

    def step():
        before = arena.grad.clone()
        trained.comm.barrier()
        make()
        trained.comm.barrier()
        kept.append(torch.equal(before, arena.grad))

    monkeypatch.setattr(trained.learners[0], "step", step)
    for number in range(3):
        trained.step(number)
    agree(kept == [True] * 3, kept)


def test_gradients_are_the_sum_until_the_next_pass_and_then_the_ranks_own(monkeypatch):
    _, trained = both("lamb", monkeypatch)
    (arena,) = trained.learners[0].arenas
    own, weight = arena.grad.data_ptr(), trained.models[0].weight
    trained.step(0)
    agree(weight.grad.data_ptr() == arena.grad.data_ptr() == arena.pieces[0].flat.grad.data_ptr())
    agree((arena.grad.data_ptr() == own) == (RANK == 0), "the sum lies at the first rank")
    bits = MPI.COMM_WORLD.allgather(weight.grad.numpy().tobytes())
    agree(len(set(bits)) == 1, "every rank reads all of it")
    trained.strategy.begin(trained.learners[1])
    agree(weight.grad.data_ptr() == arena.grad.data_ptr() == own, "another phase may write, too")


def test_ranks_that_failed_or_are_not_finite_leave_the_weights(monkeypatch):
    _, trained = both("lamb", monkeypatch)
    trained.step(0)
    before = trained.weights().copy()
    outcome = trained.step(1, scale=float("nan") if RANK == SIZE - 1 else 1.0)
    agree(not outcome.updated and not outcome.finite)
    trained.step(2)
    middle = trained.weights().copy()
    failed = RANK == 0
    # one that fails early has not even begun, while the others wait for it there
    outcome = trained.step(3, flags={"failed"} if failed else (), begins=not failed)
    agree(not outcome.updated and outcome.total.flags["failed"] == 1)
    agree(np.array_equal(trained.weights(), middle) and not np.array_equal(middle, before))
    agree(trained.step(4).updated)


def test_several_nodes_and_single_ranks_do_without():
    agree(not Trained("lamb", key=f"n{RANK % 2}/boot").reads_once)


def test_others_go_on_with_gradients_of_their_own(monkeypatch):
    one, other = both("lamb", monkeypatch)
    for trained in (one, other):
        trained.step(0)
        layout = Layout([], SIZE)
        situation = Situation.unknown(8 * SIZE, SIZE, None, 1)
        trained.strategy.regroup(layout, Scheduler(find_policy("static"), situation, 100))
        trained.step(1)
    agree(distance(other.weights(), one.weights()) < 1e-12)
    agree(len(set(MPI.COMM_WORLD.allgather(other.weights().tobytes()))) == 1)
