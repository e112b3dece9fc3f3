"""Strategies: how gradients become new weights that all ranks hold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from hpc_train.comm import Comm
from hpc_train.comm import Terms as Compression
from hpc_train.errors import UsageError, unknown
from hpc_train.plan import Batch, Plan, Work
from hpc_train.schedule import Scheduler
from hpc_train.strategies.allreduce import AllReduce, Sharding
from hpc_train.strategies.arena import Arena, assign, make_arenas
from hpc_train.strategies.claims import Claims
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.local_sgd import LocalSGD, Rounds
from hpc_train.strategies.lockstep import Outcome
from hpc_train.strategies.parameter_server import ParameterServer, Terms
from hpc_train.strategies.reductions import Means
from hpc_train.strategies.tally import Layout, Tally, Total

__all__ = [
    "STRATEGIES",
    "AllReduce",
    "Arena",
    "Claims",
    "Compression",
    "Layout",
    "Learner",
    "LocalSGD",
    "Means",
    "Options",
    "Outcome",
    "ParameterServer",
    "Regroupable",
    "Rounds",
    "Sharding",
    "Strategy",
    "Tally",
    "Terms",
    "Total",
    "assign",
    "make_arenas",
    "make_strategy",
]


class Strategy(Protocol):
    """What the trainer needs of a strategy; a strategy applies the update.

    Attributes:
        plan: the shares in force.
        claims: what this rank may claim beyond its own samples; None where all is planned.
    """

    plan: Plan
    claims: Claims | None

    def work(self, batches: Iterator[Batch]) -> Iterator[Work]:
        """Which samples of which global batch are this rank's, as they are trained."""

    def foretell(self, batches: Iterator[Batch]) -> Iterator[Work]:
        """The same as the present plan has it, to read ahead; another thread may ask."""

    def begin(self, learner: Learner) -> None:
        """Get ready for the gradients of one phase of a batch."""

    def begin_again(self, learner: Learner) -> None:
        """Forget what was done since `begin`, of which no other rank knows yet."""

    def release(self, phase: str) -> None:
        """The next backward pass of a phase is the last one of its step, on this rank."""

    def finish(self, learner: Learner, tally: Tally) -> Outcome | None:
        """Reduce, agree, and update; what became of the phase, None if that is not known yet."""

    def settle(self) -> None:
        """Make all ranks hold equal weights."""

    def tensors(self) -> dict[str, torch.Tensor]:
        """What else belongs to a checkpoint, by name; the same on all ranks when settled."""

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` told."""

    def close(self) -> None:
        """Let go of the model; not collective."""


@runtime_checkable
class Regroupable(Strategy, Protocol):
    """What a strategy also has if it can go on with other ranks than it began with."""

    def recover(self, *, is_open: bool) -> tuple[Learner, Outcome] | None:
        """End a phase that was begun (`is_open`) and never finished; collective.

        What became of it, if all ranks had agreed on that; else None, as if it had never begun.
        """

    def regroup(self, layout: Layout, scheduler: Scheduler) -> None:
        """Make anew what depends on who the ranks are; weights are equal, and stay."""


@dataclass(frozen=True)
class Options:
    """What strategies are told.

    Attributes:
        means: how ranks sum their gradients.
        server: what a parameter server is told.
        rounds: what local SGD is told.
        sharding: whether ranks of a node update slices.
    """

    means: Means = Means()  # noqa: RUF009
    server: Terms = Terms()  # noqa: RUF009
    rounds: Rounds = Rounds()  # noqa: RUF009
    sharding: Sharding = Sharding()  # noqa: RUF009


Build = Callable[[Comm, nn.Module, Sequence[Learner], Layout, Scheduler], Strategy]

# name -> what builds it, as the options say
STRATEGIES: dict[str, Callable[[Options], Build]] = {
    "allreduce": lambda options: partial(AllReduce, means=options.means, sharding=options.sharding),
    "parameter_server": lambda options: partial(ParameterServer, terms=options.server),
    "local_sgd": lambda options: partial(LocalSGD, means=options.means, rounds=options.rounds),
}


def make_strategy(
    name: str,
    comm: Comm,
    model: nn.Module,
    learners: Sequence[Learner],
    layout: Layout,
    scheduler: Scheduler,
    options: Options,
) -> Strategy:
    """The strategy called `name`."""
    if name not in STRATEGIES:
        raise UsageError(unknown("strategy", name, STRATEGIES))
    return STRATEGIES[name](options)(comm, model, learners, layout, scheduler)
