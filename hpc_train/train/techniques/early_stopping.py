"""Early stopping: a run ends when its evaluations get no better.

Prechelt, "Early stopping - but when?", 1998. All ranks hold the same metrics, so all end together.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hpc_train.checkpoint import Best
from hpc_train.config import Config
from hpc_train.strategies import Arena, Learner, assign
from hpc_train.train.technique import FINAL, Technique


@dataclass(frozen=True)
class Patience:
    """What was seen so far: a pure rule.

    Attributes:
        best: the best value; NaN before the first.
        batch: how many global batches it came after.
        bad: evaluations since then.
        last: the batch of the last evaluation.
    """

    best: float = math.nan
    batch: int = 0
    bad: int = 0
    last: int = -1

    def after(self, value: float, batch: int, *, larger: bool, min_delta: float) -> Patience:
        """The state after an evaluation; a value that is not finite is never better.

        An evaluation that is repeated after a resume counts once.
        """
        if batch == self.last:
            return self
        gain = value - self.best if larger else self.best - value
        is_first = math.isnan(self.best)
        if math.isfinite(value) and (is_first or gain > min_delta):
            return Patience(value, batch, 0, batch)
        return replace(self, bad=self.bad + 1, last=batch)


class EarlyStopping(Technique):
    """Ends the run after `patience` evaluations that were no better, with the best weights.

    Args:
        best: which metric of the validation data, and whether more of it is better.
        patience, min_delta, restore_best: see `config.schema.regularization.EarlyStopping`.
        model: whose weights and buffers are kept.
        arenas: where its weights lie.
    """

    name = "early_stopping"

    def __init__(
        self,
        best: Best,
        patience: int,
        min_delta: float,
        restore_best: bool,
        model: nn.Module,
        arenas: Sequence[Arena] = (),
    ) -> None:
        self._best = best
        self._patience = patience
        self._min_delta = min_delta
        self._model = model
        self._arenas = arenas
        self._seen = Patience()
        self._kept = {n: t.detach().clone() for n, t in self._state()} if restore_best else {}

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """Count, and keep the weights that were evaluated if they are the best so far."""
        before = self._seen
        self._seen = before.after(
            metrics[self._best.metric],
            batch,
            larger=self._best.largest,
            min_delta=self._min_delta,
        )
        if self._seen.bad == 0 and self._kept and self._seen is not before:
            for name, tensor in self._state():
                self._kept[name].copy_(tensor)
        return self.ended()

    def ended(self) -> str | None:
        """Why the run is over, if it is; with more patience it can go on."""
        if self._seen.bad < self._patience:
            return None
        return (
            f"{self._best.metric} was best after batch {self._seen.batch} "
            f"({self._seen.best:.6g}), and no better in {self._seen.bad} evaluations since"
        )

    @contextmanager
    def evaluating(self, *, final: bool) -> Iterator[None]:
        """The best weights in the final evaluation."""
        if not final or not self._has_best:
            yield
            return
        weights = {name: tensor.detach().clone() for name, tensor in self._state()}
        try:
            self._write(self._kept)
            yield
            self._write(weights)
        except BaseException:
            self._write(weights, alone=True)
            raise

    def finish(self) -> None:
        """Leave the best weights in the model."""
        if self._has_best:
            self._write(self._kept)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The best weights, by their names."""
        return {FINAL + name: tensor for name, tensor in self._kept.items()}

    def notes(self) -> dict[str, Any]:
        """What was seen."""
        seen = self._seen
        best = None if math.isnan(seen.best) else seen.best
        counts = {"batch": seen.batch, "bad": seen.bad, "last": seen.last}
        return {"best": best, **counts, "is_final": self._has_best}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take up what was seen; without it counting begins anew."""
        known = self._kept.keys() <= {name.removeprefix(FINAL) for name in tensors}
        if notes.get("best") is None or not known:
            return
        counts = (int(notes[key]) for key in ("batch", "bad", "last"))
        self._seen = Patience(float(notes["best"]), *counts)
        for name, tensor in self._kept.items():
            tensor.copy_(tensors[FINAL + name])

    @property
    def _has_best(self) -> bool:
        return bool(self._kept) and not math.isnan(self._seen.best)

    def _state(self) -> list[tuple[str, torch.Tensor]]:
        state = self._model.state_dict()
        return [(n, t) for n, t in state.items() if isinstance(t, torch.Tensor)]

    def _write(self, values: Mapping[str, torch.Tensor], *, alone: bool = False) -> None:
        pairs = [(tensor, values[name]) for name, tensor in self._state()]
        assign(self._arenas, pairs, alone=alone)


def make(config: Config, model: nn.Module, learners: Sequence[Learner]) -> Technique | None:
    """The technique, if the configuration names a metric."""
    section = config.early_stopping
    if section.metric is None:
        return None
    best = Best.parse(section.metric)
    arenas = [arena for learner in learners for arena in learner.arenas]
    return EarlyStopping(
        best, section.patience, section.min_delta, section.restore_best, model, arenas
    )
