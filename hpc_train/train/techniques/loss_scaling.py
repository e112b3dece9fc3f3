"""Dynamic loss scaling: small gradients survive in float16, and an overflow skips the step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from hpc_train.config import Config
from hpc_train.strategies import Learner, Tally
from hpc_train.train.technique import Technique


@dataclass(frozen=True)
class Scale:
    """A loss scale and what decides on it: pure, as torch's GradScaler does it.

    Micikevicius et al., "Mixed precision training", ICLR 2018, section 3.2.

    Attributes:
        value: factor on the mean loss.
        good: steps without an overflow since it last changed.
        growth, backoff: factors on it; interval: good steps before it grows.
    """

    value: float
    good: int = 0
    growth: float = 2.0
    backoff: float = 0.5
    interval: int = 2000

    def after_good(self) -> Scale:
        """The scale after a step that was made."""
        if self.good + 1 < self.interval:
            return replace(self, good=self.good + 1)
        grown = self.value * self.growth
        return replace(self, good=0, value=grown if grown < _LARGEST else self.value)

    def after_overflow(self) -> Scale:
        """The scale after a step that was skipped."""
        return replace(self, good=0, value=self.value * self.backoff)


_LARGEST = torch.finfo(torch.float32).max


class LossScaling(Technique):
    """One scale for each phase; the same on all ranks, since it hears of agreed outcomes alone.

    Losses are summed, not averaged, so the factor on them is the scale over the size of the global
    batch, rounded to a power of two: exact, and taken back before gradients of other techniques
    are added and before ranks add up theirs. An overflow on one rank is infinite in the sum.

    Args:
        first: the scale to begin with.
        batch_size: samples of a global batch.
    """

    name = "loss_scaling"

    def __init__(self, first: Scale, batch_size: int) -> None:
        self._first = first
        self._mean = 2.0 ** -round(math.log2(batch_size))
        self._scales: dict[str, Scale] = {}

    def scale(self, phase: str) -> Scale:
        """The scale of a phase."""
        return self._scales.get(phase, self._first)

    def loss_factor(self, phase: str) -> float:
        """What the sum of losses is multiplied with."""
        return self.scale(phase).value * self._mean

    def gradients(self, learner: Learner, tally: Tally) -> None:
        """Take the factor back."""
        for arena in learner.arenas:
            arena.grad.mul_(1 / self.loss_factor(learner.name))

    def updated(self, learner: Learner) -> None:
        """Count a good step."""
        self._scales[learner.name] = self.scale(learner.name).after_good()

    def overflowed(self, learner: Learner) -> str | None:
        """Lower the scale; below 1 a gradient that is not finite is no matter of scaling."""
        if self.scale(learner.name).value < 1:
            return None
        self._scales[learner.name] = scale = self.scale(learner.name).after_overflow()
        return f"loss scale {scale.value:g}"

    def notes(self) -> dict[str, Any]:
        """Scale and good steps of each phase."""
        return {phase: [scale.value, scale.good] for phase, scale in self._scales.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take up what `notes` told."""
        self._scales = {
            phase: replace(self._first, value=float(value), good=int(good))
            for phase, (value, good) in notes.items()
        }


def make(config: Config) -> Technique | None:
    """The technique, if the network computes in float16."""
    section = config.precision
    if section.autocast != "float16":
        return None
    first = Scale(
        section.loss_scale,
        growth=section.loss_scale_growth,
        backoff=section.loss_scale_backoff,
        interval=section.growth_interval,
    )
    return LossScaling(first, config.data.batch_size)
