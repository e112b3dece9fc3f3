"""A training of nine thousand weights without data, for stories of ranks that die in an update.

A batch is twelve samples, whose gradients any number of ranks share among each other: so what comes
out can be compared with what one process computes by itself. The scripts of the stories import it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from hpc_train.launch import launching
from hpc_train.optim import Settings, clip_factor
from hpc_train.schedule import Scheduler, Situation, find_policy
from hpc_train.strategies import AllReduce, Layout, Learner, Means
from tests.jobs.processes import Job

SAMPLES = 12
WEIGHT = 3.0  # of a batch
ROOT = Path(__file__).parents[2]


def network():
    """The model before the first update."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(40, 100), torch.nn.Linear(100, 90)
    return torch.nn.Sequential(*layers).double()


def learner_of(model, optimizer):
    """Who updates it."""
    settings = Settings(lr=0.01, weight_decay=0.1)
    return Learner("main", list(model.named_parameters()), optimizer, settings, clip_norm=0.5)


def gradient(model, batch, samples):
    """Add the gradients of some samples of a batch."""
    for sample in samples:
        rng = np.random.default_rng([batch, sample])
        for parameter in model.parameters():
            parameter.grad += torch.from_numpy(rng.standard_normal(parameter.shape))


def layout_of(size):
    """What the ranks report."""
    return Layout([], size)


def scheduler_of(size):
    """Equal shares."""
    return Scheduler(find_policy("static"), Situation.unknown(SAMPLES, size, None, 1), 99)


def strategy_of(comm, model, learner, sharding):
    """How ranks train together."""
    size = comm.world.size
    return AllReduce(
        comm, model, [learner], layout_of(size), scheduler_of(size), Means(), sharding=sharding
    )


def distance(model, learner, optimizer, num_batches):
    """How far weights and optimizer state are from those of one process that nothing disturbs."""
    calm = network()
    alone = learner_of(calm, optimizer)
    for batch in range(num_batches):
        alone.zero()
        gradient(calm, batch, range(SAMPLES))
        alone.update(clip_factor(alone.norm() / WEIGHT, 0.5) / WEIGHT)
    pairs = list(zip(model.parameters(), calm.parameters(), strict=True))
    state, expected = learner.state(), alone.state()
    pairs += [(value, expected[name]) for name, value in state.items()]
    return max(float((one - other).detach().abs().max()) for one, other in pairs)


def play(script, *words, ranks, cwd):
    """Run a script on ranks that may die; its end, and what it printed last, from JSON."""
    path = cwd / "story.py"
    path.write_text(script)
    program = [sys.executable, "-m", "mpi4py", str(path), *words]
    with launching(program, ranks, fault_tolerant=True) as call:
        env = {**call.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        ended = Job(call.argv, cwd=cwd, env=env).end(240)
    lines = ended.out.strip().splitlines()
    assert lines, ended
    return ended, json.loads(lines[-1])
