"""Lowering the learning rate when the validation data say that it no longer gets better."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hpc_train.checkpoint import Best
from hpc_train.config import Config
from hpc_train.train.technique import Technique

logger = logging.getLogger(__name__)

_KEPT = ("num_bad_epochs", "cooldown_counter", "last_epoch")


class Plateau(Technique):
    """torch's rule, told of each evaluation of the validation data.

    All ranks hold the same metrics, so they lower the rate in the same step.

    Args:
        best: what is looked at, and which of it is better.
        gamma: factor on the rate each time, in (0, 1).
        patience: evaluations without a gain that are borne.
        threshold: smallest gain that counts, relative to the best value.
        cooldown: evaluations after a lowering in which nothing is counted.
        smallest: the factor is never below it.
    """

    name = "plateau"

    def __init__(
        self,
        best: Best,
        gamma: float,
        *,
        patience: int = 10,
        threshold: float = 1e-4,
        cooldown: int = 0,
        smallest: float = 0.0,
    ) -> None:
        self._metric = best.metric
        rate = torch.nn.Parameter(torch.zeros(1))  # torch's rule wants an optimizer to act on
        self._optimizer = torch.optim.SGD([rate], lr=1.0)
        self._rule = ReduceLROnPlateau(
            self._optimizer,
            "max" if best.largest else "min",
            factor=gamma,
            patience=patience,
            threshold=threshold,
            cooldown=cooldown,
            min_lr=smallest,
            eps=0.0,
        )

    def rate_factor(self) -> float:
        """What is left of the rate."""
        return float(self._optimizer.param_groups[0]["lr"])

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """Count this evaluation, and lower the rate if it was one too many without a gain."""
        before = self.rate_factor()
        self._rule.step(metrics[self._metric])
        if self.rate_factor() < before:
            logger.info(
                "%s did not get better: from batch %d on the learning rate is its curve times %g",
                self._metric,
                batch,
                self.rate_factor(),
            )
        return None

    def notes(self) -> dict[str, Any]:
        """The factor, and what the rule has counted; nothing before the first evaluation."""
        if self._rule.last_epoch == 0:
            return {}
        state = self._rule.state_dict()
        best = self._rule.best if math.isfinite(self._rule.best) else None
        return {
            "factor": self.rate_factor(),
            "best": best,
            **{key: state[key] for key in _KEPT},
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take up what `notes` told."""
        if notes:
            self._optimizer.param_groups[0]["lr"] = notes["factor"]
            best = {} if notes["best"] is None else {"best": notes["best"]}
            self._rule.load_state_dict({**best, **{key: notes[key] for key in _KEPT}})


def make(config: Config) -> Plateau | None:
    """The rule that `[learning_rate]` asks for; None for any other curve."""
    section = config.learning_rate
    if section.name != "plateau":
        return None
    return Plateau(
        Best.parse(section.metric),
        section.gamma,
        patience=section.patience,
        threshold=section.threshold,
        cooldown=section.cooldown,
        smallest=section.final_factor,
    )
