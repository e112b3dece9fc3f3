"""Losses of mixed samples: the model is called once, its output is held against both targets.

    mixed inputs --model--> output --+-- own targets ------ losses a --+
                                     `-- partners' targets - losses b --+-- share a + (1 - share) b

Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: beyond empirical risk minimization", ICLR 2018.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from hpc_train.tasks.task import Losses, Phase, TensorBatch


def losses_of(phase: Phase, model: nn.Module, batch: TensorBatch) -> Losses:
    """What a phase says of a batch, whether its samples are mixed or not."""
    mixed = batch.mixed
    if mixed is None:
        return phase.losses(model, batch)
    remembering = cast(nn.Module, _Remembering(model))
    plain = replace(batch, mixed=None)
    own = phase.losses(remembering, plain)
    other = phase.losses(remembering, replace(plain, targets=mixed.targets))
    return blend(own, other, mixed.share)


def blend(own: Losses, other: Losses, share: float) -> Losses:
    """`share` of one, and the rest of the other: weights and metrics, too."""
    sums = {name: share * own.sums[name] + (1 - share) * other.sums[name] for name in own.sums}
    if own.weights is None or other.weights is None:
        return Losses(share * own.values + (1 - share) * other.values, None, sums)
    first, second = share * own.weights, (1 - share) * other.weights
    weights = first + second
    total = first * own.values + second * other.values
    return Losses(total / torch.where(weights == 0, 1, weights), weights, sums)


class _Remembering:
    """A model that is called once with each input, and then gives the same outputs again."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._outputs: dict[tuple[int, ...], Any] = {}

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        tensors = [t for one in inputs for t in (one.values() if isinstance(one, dict) else [one])]
        key = tuple(map(id, tensors))
        if key not in self._outputs:
            self._outputs[key] = self._model(*inputs, **more)
        return self._outputs[key]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
