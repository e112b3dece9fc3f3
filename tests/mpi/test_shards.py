"""Each rank of a node updates a slice: the same weights and state as where each updates all."""

import numpy as np
import pytest
import torch
from mpi4py import MPI

from hpc_train.checkpoint import Store
from hpc_train.comm import Comm
from hpc_train.optim import OPTIMIZERS, Grouping, Settings
from hpc_train.schedule import Scheduler, Situation, find_policy
from hpc_train.strategies import AllReduce, Layout, Learner, Means, Sharding, Tally
from tests.mpi.agree import agree
from tests.mpi.runs import distance, shared_dir, train

pytestmark = pytest.mark.mpi(min_size=2)

# whole runs are long; three ranks are as good as four
runs = pytest.mark.skipif(MPI.COMM_WORLD.size > 3, reason="whole runs, on two and three ranks")

SIZE, RANK = MPI.COMM_WORLD.size, MPI.COMM_WORLD.rank
ELEMENTWISE = sorted(name for name, kind in OPTIMIZERS.items() if kind.kernel)
SETTINGS = Settings(lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01, centered=True)
# run twice: parameters lie once per node, or once per rank
SHARDED, WHOLE = {"shard_optimizer": True}, {"shard_optimizer": False}


def network():
    torch.manual_seed(0)
    layers = [torch.nn.Linear(50, 700), torch.nn.Tanh(), torch.nn.Linear(700, 301)]
    return torch.nn.Sequential(*layers).double()


class Trained:
    """A network, trained step by step with given gradients."""

    def __init__(self, wanted, optimizer, key=None, shares=None, collective="auto", clip=0.5):
        self.model = network()
        grouping = Grouping(rates={"2.*": 0.5}, exempt=frozenset({id(self.model[0].bias)}))
        named = list(self.model.named_parameters())
        self.learner = Learner("main", named, optimizer, SETTINGS, clip, grouping)
        self.comm = Comm(MPI, MPI.COMM_WORLD, key)
        situation = Situation.unknown(8 * SIZE, SIZE, shares, 1)
        scheduler = Scheduler(find_policy("static"), situation, 100)
        self.strategy = AllReduce(
            self.comm,
            self.model,
            [self.learner],
            Layout([], SIZE),
            scheduler,
            Means(collective),
            sharding=Sharding(wanted),
        )

    @property
    def is_sharded(self):
        return all(arena.shared for arena in self.learner.arenas)

    def step(self, number, scale=1.0, flags=()):
        self.strategy.begin(self.learner)
        self.learner.zero()
        rng = np.random.default_rng([number, RANK])
        for parameter in self.model.parameters():
            parameter.grad += torch.from_numpy(rng.standard_normal(parameter.shape)) * scale
        self.learner.gather()
        self.learner.set_rate(1 / (number + 1))
        return self.strategy.finish(self.learner, Tally(weight=RANK + 1.0, flags=set(flags)))

    def weights(self):
        return torch.cat([p.detach().reshape(-1) for p in self.model.parameters()]).numpy()

    def state(self):
        return {name: tensor.numpy().copy() for name, tensor in self.learner.state().items()}


@pytest.mark.parametrize("optimizer", ELEMENTWISE)
def test_slices_make_the_update_of_the_whole(optimizer):
    one, other = Trained(False, optimizer), Trained(True, optimizer)
    agree(other.is_sharded and not one.is_sharded)
    for number in range(4):
        a, b = one.step(number), other.step(number)
        agree(a.updated and b.updated and abs(a.norm / b.norm - 1) < 1e-12, (a.norm, b.norm))
    far = distance(other.weights(), one.weights())
    agree(far < 1e-10, far)
    here, there = one.state(), other.state()
    agree(here.keys() == there.keys(), (here.keys(), there.keys()))
    far = max(distance(there[n], here[n]) for n in here)
    agree(far < 1e-10, far)
    same = MPI.COMM_WORLD.allgather(other.weights().tobytes())
    agree(len(set(same)) == 1, "the weights of a node are in one place")


@pytest.mark.parametrize(
    ("key", "collective"),
    [(None, "native"), (f"n{RANK % 2}/boot", "auto"), (f"n{RANK // 2}", "ring")],
)
def test_any_collective_and_several_nodes(key, collective):
    one = Trained(False, "adamw", key, collective=collective)
    other = Trained(True, "adamw", key, collective=collective)
    nodes = other.comm.world.nodes
    agree(other.is_sharded == (len(set(nodes)) < SIZE), nodes)
    for number in range(3):
        one.step(number)
        other.step(number)
    agree(distance(other.weights(), one.weights()) < 1e-12)
    other.strategy.settle()


@pytest.mark.parametrize("shares", [[0] * (SIZE - 1) + [1], [*range(SIZE)], [1, *[5] * (SIZE - 1)]])
def test_slices_follow_the_shares(shares):
    one, other = Trained(False, "sgd"), Trained(True, "sgd", shares=shares)
    for number in range(3):
        one.step(number)
        other.step(number)
    agree(distance(other.weights(), one.weights()) < 1e-12)
    (shards,) = other.strategy._shards.values()
    mine = sum(block.weight.numel() for block in shards._blocks)
    counts = other.strategy.plan.counts
    expected = counts[RANK] / sum(counts) * other.learner.arenas[0].data.numel()
    agree(abs(mine - expected) < 64, (mine, expected))


def test_nobody_updates_when_a_number_is_not_finite_or_a_rank_has_failed():
    trained = Trained(True, "adamw")
    trained.step(0)
    before = trained.weights().copy()
    scale = float("nan") if RANK == SIZE - 1 else 1.0
    outcome = trained.step(1, scale)
    agree(not outcome.updated and not outcome.finite)
    outcome = trained.step(2, flags={"failed"} if RANK == 0 else ())
    agree(not outcome.updated and outcome.total.flags["failed"] == 1)
    outcome = trained.step(3, flags={"non_finite"} if RANK == 0 else ())
    agree(not outcome.updated)
    agree(np.array_equal(trained.weights(), before))
    agree(trained.step(4).updated and not np.array_equal(trained.weights(), before))


def test_gradients_whose_squares_are_too_large_are_clipped_and_not_refused():
    trained = [Trained(wanted, "sgd") for wanted in (False, True)]
    outcomes = [one.step(0, 1e200) for one in trained]
    agree(all(not outcome.finite for outcome in outcomes), "beyond the range of float64")
    outcomes = [one.step(1, 1e100) for one in trained]
    agree(all(outcome.updated for outcome in outcomes))
    agree(distance(trained[1].weights(), trained[0].weights()) < 1e-12)


def test_writers_act_once_a_node_and_state_is_loaded_once():
    trained = Trained(True, "adamw")
    trained.step(0)
    arena = trained.learner.arenas[0]
    before, saved = trained.weights().copy(), trained.state()
    arena.write(lambda data: data.add_(1))
    agree(np.allclose(trained.weights(), before + 1))
    trained.learner.forget()
    agree(all(not value.any() for value in trained.state().values()))
    trained.learner.load_state({n: torch.from_numpy(v) for n, v in saved.items()})
    agree(all(np.array_equal(v, saved[n]) for n, v in trained.state().items()))
    agree(trained.is_sharded and arena.holds(next(trained.model.parameters())))


@runs
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "lamb"])
def test_a_run_is_the_same_and_is_resumed_on_other_numbers_of_ranks(optimizer, tmp_path):
    folder = shared_dir(tmp_path)
    settings = {
        "precision": {"dtype": "float64"},
        "optimizer": {"name": optimizer, "lr": 0.01, "momentum": 0.9, "clip_norm": 0.5},
        "model": "digits-cnn",
        "checkpoint": {"every": "4 steps"},
    }
    whole = train(SIZE, folder / "whole", run={"steps": 12}, strategy=WHOLE, **settings)
    parts = folder / "parts"
    train(SIZE, parts, run={"steps": 5}, strategy=SHARDED, **settings)
    train(1, parts, resume=parts, run={"steps": 8}, strategy=SHARDED, **settings)
    found = train(SIZE, parts, resume=parts, run={"steps": 12}, strategy=SHARDED, **settings)
    agree(distance(found[0], whole[0]) < 1e-10, distance(found[0], whole[0]))
    a, b = (Store(folder / name / "checkpoints").newest().tensors for name in ("whole", "parts"))
    agree(a.keys() == b.keys() and all(a[n].shape == b[n].shape for n in a))
    agree(all(torch.allclose(a[n].double(), b[n].double(), 1e-8, 1e-12) for n in a))


@runs
@pytest.mark.parametrize(
    "sections",
    [
        {"regularization": {"max_norm": 0.4}},
        {"regularization": {"ema_decay": 0.8}, "run": {"evaluate": "3 steps"}},
        {"compress": {"prune": "magnitude", "amount": 0.5, "every": "2 steps", "rewind": 0.1}},
        {"compress": {"prune": "sensitivity", "amount": 0.5, "every": "2 steps"}},
        {"compress": {"prune": "saliency", "amount": 0.5, "every": "2 steps"}},
        {"early_stopping": {"metric": "min loss", "patience": 2}, "run": {"evaluate": "2 steps"}},
        {"schedule": {"shares": [0, *[1] * (SIZE - 1)]}},
    ],
)
def test_what_else_writes_parameters_does_the_same(sections, tmp_path, caplog):
    folder = shared_dir(tmp_path)
    sections = {"precision": {"dtype": "float64"}, **sections}
    sections["run"] = {"steps": 10, **sections.get("run", {})}
    sections["data"] = {"validation": "builtin:digits/test"}
    one = train(SIZE, folder / "whole", strategy=WHOLE, **sections)
    other = train(SIZE, folder / "parts", strategy=SHARDED, **sections)
    agree(distance(other[0], one[0]) < 1e-10, distance(other[0], one[0]))
    for kind, metrics in one[1].metrics.items():
        agree(abs(other[1].metrics[kind]["loss"] - metrics["loss"]) < 1e-10)
    if "compress" in sections:
        # ranks that each knew a slice of the gradient would choose by it, and be overruled
        agree(not [line for line in caplog.messages if "round differently" in line])
        sets = [
            Store(folder / name / "checkpoints").newest().tensors for name in ("whole", "parts")
        ]
        masks = [{n: t for n, t in one.items() if "pruning/mask/" in n} for one in sets]
        agree(masks[0] and masks[0].keys() == masks[1].keys())
        agree(all(torch.equal(masks[1][n], mask) for n, mask in masks[0].items()))
