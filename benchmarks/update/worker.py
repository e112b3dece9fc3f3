"""One rank of a measurement: `worker.py SETTINGS.json`; rank 0 writes what all measured."""

import ctypes
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from hpc_train.bench.gloo import start_gloo
from hpc_train.bench.harness import alternate
from hpc_train.comm import Comm, connect
from hpc_train.models import cnn, mlp, transformer
from hpc_train.optim import Settings, make_optimizer
from hpc_train.schedule import Scheduler, Situation, find_policy
from hpc_train.strategies import AllReduce, Layout, Learner, Means, Sharding, Tally
from hpc_train.train.memory import keep_freed_memory

MIB = 2**20
SETTINGS = {
    "sgd": Settings(lr=1e-4, momentum=0.9),
    "adamw": Settings(lr=1e-4, weight_decay=0.01),
}


def strategy_of(comm: Comm, model: nn.Module, optimizer: str, sharding: Sharding, clip=None):
    """The strategy of a run, and its learner."""
    learner = Learner("main", model.named_parameters(), optimizer, SETTINGS[optimizer], clip)
    size = comm.world.size
    scheduler = Scheduler(find_policy("static"), Situation.unknown(size, size, None, 1), 10**6)
    made = AllReduce(
        comm, model, [learner], Layout([], size), scheduler, Means(), sharding=sharding
    )
    return made, learner


class Flat(nn.Module):
    """Nothing but parameters: a hundred matrices."""

    def __init__(self, size_bytes: int) -> None:
        super().__init__()
        each = size_bytes // 4 // 100
        self.weights = nn.ParameterList(torch.full((each,), 0.1) for _ in range(100))


class Ours:
    """Reduce, agree, clip and update by slices."""

    def __init__(self, comm: Comm, size_bytes: int, optimizer: str, *, protected: bool) -> None:
        comm.fault_tolerant = protected  # with a journal; what MPI is told costs nothing here
        model = Flat(size_bytes)
        sharding = Sharding(True, survives=protected)
        self.strategy, self.learner = strategy_of(comm, model, optimizer, sharding, clip=1.0)
        comm.fault_tolerant = False
        assert self.learner.arenas[0].shared
        assert (self.strategy._journal is not None) == protected
        self.gradient = self.learner.arenas[0].grad

    def update(self) -> None:
        """What comes after backward."""
        self.strategy.finish(self.learner, Tally(weight=1.0))


class Plain:
    """MPI's sum in place, and torch's fused optimizer of all parameters as one, on every rank."""

    def __init__(self, comm: Comm, size_bytes: int, optimizer: str) -> None:
        flat = nn.Parameter(torch.full((size_bytes // 4,), 0.1))
        flat.grad = torch.zeros_like(flat)
        self.gradient = flat.grad
        self.optimizer = make_optimizer(optimizer, [flat], SETTINGS[optimizer])
        self.sums = comm.data, flat.grad.numpy()

    def update(self) -> None:
        """What comes after backward."""
        from mpi4py import MPI

        communicator, gradient = self.sums
        communicator.Allreduce(MPI.IN_PLACE, gradient)
        self.optimizer.step()


def updates(comm: Comm, told: dict) -> dict:
    """Seconds of one update, by side, in each round."""
    size, optimizer = told["bytes"], told["optimizer"]
    sides = {
        "protected": Ours(comm, size, optimizer, protected=True),
        "unprotected": Ours(comm, size, optimizer, protected=False),
        "MPI + torch": Plain(comm, size, optimizer),
    }
    fresh = torch.from_numpy(np.random.default_rng(comm.world.rank).normal(size=size // 4))
    fresh = fresh.to(torch.float32)
    found = {name: [] for name in sides}
    for number, name in alternate(list(sides), told["rounds"] + 2):
        side = sides[name]
        seconds = []
        for _ in range(told["repeats"]):
            side.gradient[: len(fresh)].copy_(fresh[: len(side.gradient)])
            comm.meet()
            started = time.perf_counter()
            side.update()
            comm.meet()
            seconds.append(time.perf_counter() - started)
        if number >= 2:
            found[name].append(min(seconds))
    return found


def network(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A model, and a batch for it."""
    torch.manual_seed(0)
    if name == "mlp":  # 4.75 M parameters
        return (
            mlp((1, 28, 28), 10, hidden=[1490, 1490, 900]),
            torch.randn(32, 1, 28, 28),
            classes(32),
        )
    if name == "cnn":
        return (
            cnn((1, 28, 28), 10, channels=[16, 32], hidden=64),
            torch.randn(32, 1, 28, 28),
            classes(32),
        )
    model = transformer((64,), 65, num_tokens=65, layers=4, heads=4, width=128)
    return model, torch.randint(65, (8, 64)), torch.randint(65, (8, 64))


def classes(count: int) -> torch.Tensor:
    return torch.randint(10, (count,))


def backward(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor, scale: float) -> None:
    """The gradient of the sum of losses, times `scale`."""
    scores = model(inputs)
    loss = functional.cross_entropy(scores.flatten(0, -2), targets.flatten(), reduction="sum")
    (loss * scale).backward()


def steps(comm: Comm, told: dict) -> dict:
    """Seconds of a whole step, by side, in each round."""
    start_gloo(comm)
    model, inputs, targets = network(told["model"])
    strategy, learner = strategy_of(comm, model, "sgd", Sharding(told["sharding"]))
    other, alone = network(told["model"])[0], network(told["model"])[0]
    ddp = DistributedDataParallel(other, gradient_as_bucket_view=True)
    theirs = make_optimizer("sgd", list(other.parameters()), SETTINGS["sgd"])
    own = make_optimizer("sgd", list(alone.parameters()), SETTINGS["sgd"])
    weight = float(targets.numel())

    def by_us() -> None:
        strategy.begin(learner)
        backward(model, inputs, targets, 1.0)
        learner.gather()
        strategy.finish(learner, Tally(weight=weight))

    def by_ddp() -> None:
        theirs.zero_grad()
        backward(ddp, inputs, targets, 1 / weight)
        theirs.step()

    def by_nobody() -> None:
        own.zero_grad()
        backward(alone, inputs, targets, 1 / weight)
        own.step()

    sides = {"hpc_train": by_us, "DDP": by_ddp, "no communication": by_nobody}
    found = {name: [] for name in sides}
    for number, name in alternate(list(sides), told["rounds"] + 2):
        comm.meet()
        started = time.perf_counter()
        for _ in range(told["repeats"]):
            sides[name]()
        comm.meet()
        if number >= 2:
            found[name].append((time.perf_counter() - started) / told["repeats"])
    dist.destroy_process_group()
    far = max(
        float((a - b).detach().abs().max())
        for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    return {**found, "difference": far, "parameters": learner.num_weights}


def memory(comm: Comm, told: dict) -> dict:
    """Bytes that parameters and optimizer state take on the node, of all ranks together."""

    def train(size: int) -> tuple[object, int]:
        """A strategy that has made an update, and the bytes of its gradients, all of them used."""
        strategy, learner = strategy_of(comm, Flat(size), "adamw", Sharding(told["sharding"]))
        for arena in learner.arenas:
            arena.grad.fill_(0.01)
        strategy.finish(learner, Tally(weight=1.0))
        return strategy, sum(arena.grad.nbytes for arena in learner.arenas)

    small = train(MIB)  # whatever the first update loads is there before
    ctypes.CDLL(None).malloc_trim(0)
    comm.meet()
    before = proportional_bytes()
    large, gradients = train(told["bytes"])
    ctypes.CDLL(None).malloc_trim(0)  # freed memory, such as that of the first weights, is none
    comm.meet()
    mine = proportional_bytes() - before - gradients
    del small, large
    return {"bytes": sum(comm.gather(mine))}


def proportional_bytes() -> int:
    """This rank's memory; what it shares with others counts in part (Linux: Pss)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    """Measure what the file says."""
    torch.set_num_threads(1)
    told = json.loads(Path(sys.argv[1]).read_text())
    if told["keep_memory"]:
        keep_freed_memory()
    comm = connect()
    found = {"update": updates, "step": steps, "memory": memory}[told["what"]](comm, told)
    if comm.world.is_coordinator:
        Path(told["out"]).write_text(json.dumps(found))
    comm.barrier()


if __name__ == "__main__":
    main()
