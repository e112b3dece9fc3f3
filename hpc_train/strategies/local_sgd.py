"""Local SGD: ranks update alone for a period of batches, then take the mean of their weights.

    batch       0   1   2   3 | 4   5   6   7 | ...                       period 4
    rank 0      u   u   u   u A u   u   u   u A      u: update with this rank's own gradient
    rank 1      u   u   u   u A u   u   u   u A      A: mean of all movements, by sample weight

A round moves the weights from x to x + v with v = momentum v + sum_r (w_r / w) (x_r - x), where
x_r is where rank r arrived and w_r the sum of its sample weights: with momentum 0 the mean of all
weights (Stich, "Local SGD converges fast and communicates little", ICLR 2019), otherwise an outer
momentum (Wang et al., "SlowMo", ICLR 2020). The first batches may be synchronous: post-local SGD
(Lin et al., "Don't use large mini-batches, use local SGD", ICLR 2020). With period 1 and plain SGD
it is synchronous training.

Shares follow the speeds as in `allreduce`, so rounds also end together. The tally is agreed in
every batch: it is small, and all ranks hear of errors, stops and saves at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from hpc_train.comm import Comm, prepare
from hpc_train.optim import clip_factor
from hpc_train.record import phase
from hpc_train.schedule import Scheduler
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.lockstep import LockStep, Outcome
from hpc_train.strategies.reductions import Means
from hpc_train.strategies.tally import Layout, Tally


@dataclass(frozen=True)
class Rounds:
    """What local SGD is told.

    Attributes:
        period: batches of a round, >= 1.
        synchronous_steps: batches at the beginning that are trained synchronously, >= 0.
        outer_momentum: in [0, 1).
        within_node: whether the ranks of a node sum their gradients in every batch.
    """

    period: int = 8
    synchronous_steps: int = 0
    outer_momentum: float = 0.0
    within_node: bool = False


class LocalSGD(LockStep):
    """Updates of each rank (or node) alone, and a mean of weights at the end of each round."""

    def __init__(
        self,
        comm: Comm,
        model: nn.Module,
        learners: Sequence[Learner],
        layout: Layout,
        scheduler: Scheduler,
        means: Means,
        rounds: Rounds,
    ) -> None:
        super().__init__(comm, model, learners, layout, scheduler, means)
        self._rounds = rounds
        # this rank's sample weights since all ranks held equal weights, and where that was
        self._moved = {learner.name: 0.0 for learner in learners}
        self._is_apart = {learner.name: False for learner in learners}
        self._starts = {
            learner.name: [arena.data.detach().clone() for arena in learner.arenas]
            for learner in learners
        }
        self._velocity = {
            learner.name: [torch.zeros_like(arena.data) for arena in learner.arenas]
            for learner in learners
            if rounds.outer_momentum
        }
        self._team = comm.split(comm.world.node) if rounds.within_node else None
        self._team_reductions = {
            learner.name: [prepare("native", self._team, arena.grad) for arena in learner.arenas]
            for learner in learners
            if self._team is not None
        }

    def settle(self) -> None:
        """End the open round, and take the mean of the optimizers' states, too."""
        for learner in self._learners:
            if self._is_apart[learner.name]:
                with phase("communication", operation="average"):
                    part = self._part(learner)
                    self._average(learner, part)
                    learner.mix_state(part, lambda one=learner: self._reduce(one), self._most)  # type: ignore[misc]
        super().settle()

    def tensors(self) -> dict[str, torch.Tensor]:
        """The outer momentum, by parameter."""
        return {
            f"{learner.name}/velocity/{name}": arena.view(velocity, name)
            for learner in self._learners
            for arena, velocity in zip(
                learner.arenas, self._velocity.get(learner.name, ()), strict=False
            )
            for name in arena.places
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` told; what is missing begins at zero."""
        for name, own in self.tensors().items():
            if name in tensors:
                own.copy_(tensors[name])

    def _step(self, learner: Learner, tally: Tally) -> Outcome:
        if self._number < self._rounds.synchronous_steps:
            return super()._step(learner, tally)
        if "failed" in tally.flags:
            learner.zero()
        with phase("communication", operation="agree"):
            weight = self._reduce_in_team(learner, tally)
            norm = learner.norm() / weight if weight else 0.0
            total = self._agree(tally)
            broken, norms = self._comm.sum(
                np.array([not math.isfinite(norm), tally.weight * np.nan_to_num(norm)])
            )
        if total.flags["failed"]:
            self._buffers.restore()
            return Outcome(total, updated=False, norm=math.nan, finite=True)
        if broken or total.flags["non_finite"]:
            self._buffers.restore()
            return Outcome(total, updated=False, norm=math.nan, finite=False)
        with phase("update"):
            self._move(learner, tally, norm, weight)
        self._samples += tally.samples
        if (self._number + 1 - self._rounds.synchronous_steps) % self._rounds.period == 0:
            with phase("communication", operation="average"):
                self._average(learner, self._part(learner))
        mean = norms / total.weight if total.weight else math.nan
        return Outcome(total, updated=total.weight > 0, norm=mean, finite=True)

    def _reduce_in_team(self, learner: Learner, tally: Tally) -> float:
        """Sum gradients and weights over the ranks that update together; gives the weight."""
        if self._team is None:
            return tally.weight
        reductions = self._team_reductions[learner.name]
        for reduction in reductions:
            reduction.launch()
        for reduction in reductions:
            reduction.finish()
        return float(self._team.sum(np.array([tally.weight]))[0])

    def _move(self, learner: Learner, tally: Tally, norm: float, weight: float) -> None:
        """An update of this rank's own weights; none without samples."""
        if not self._is_apart[learner.name]:
            self._is_apart[learner.name] = True
            for start, arena in zip(self._starts[learner.name], learner.arenas, strict=True):
                start.copy_(arena.data)
        if weight:
            learner.update(clip_factor(norm, learner.clip_norm) / weight)
        self._moved[learner.name] += tally.weight

    def _part(self, learner: Learner) -> float:
        """This rank's part of all sample weights of the round; equal parts if there were none."""
        total = float(self._comm.sum(np.array([self._moved[learner.name]]))[0])
        return self._moved[learner.name] / total if total else 1 / self._comm.world.size

    def _average(self, learner: Learner, part: float) -> None:
        """Move all ranks to the mean of where they arrived; gradients are overwritten."""
        starts = self._starts[learner.name]
        with torch.no_grad():
            for start, arena in zip(starts, learner.arenas, strict=True):
                torch.sub(arena.data, start, out=arena.grad).mul_(part)
            self._reduce(learner)
            for place, (start, arena) in enumerate(zip(starts, learner.arenas, strict=True)):
                movement = arena.grad
                if self._velocity:
                    movement = self._velocity[learner.name][place]
                    movement.mul_(self._rounds.outer_momentum).add_(arena.grad)
                start.add_(movement)
                arena.write(lambda data, to=start: data.copy_(to))  # type: ignore[misc]
        self._moved[learner.name] = 0.0
        self._is_apart[learner.name] = False

    def _most(self, value: float) -> float:
        """The largest of all ranks' values."""
        return max(float(one) for one in self._comm.gather(value))
