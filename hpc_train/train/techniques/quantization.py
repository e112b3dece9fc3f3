"""Quantisation-aware training: the ranges of activations, of the whole global batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hpc_train.compress import QuantizedLayer, find_quantized, with_fake_quantization
from hpc_train.config import Config
from hpc_train.errors import ConfigError
from hpc_train.plan import Batch
from hpc_train.strategies import Learner
from hpc_train.train.technique import Technique
from hpc_train.train.wanted import check_meets
from hpc_train.world import Group


class Quantization(Technique):
    """Lets layers round from some batch on, and moves their ranges after each update.

    Args:
        layers: those that learn to be int8.
        begin: the batch from which they compute with rounded numbers.
        group: the ranks.
    """

    name = "quantization"

    def __init__(self, layers: Sequence[QuantizedLayer], begin: int, group: Group) -> None:
        self._layers, self._begin, self._group = layers, begin, group

    def begin(self, batch: Batch) -> None:
        """Forget what was seen in a step that was broken off; round if it is time."""
        self._set(batch.number >= self._begin)
        for layer in self._layers:
            layer.forget()

    def updated(self, learner: Learner) -> None:
        """Move the ranges by what all ranks have seen."""
        told = self._group.gather([layer.seen for layer in self._layers])
        for number, layer in enumerate(self._layers):
            seen = [ranges[number] for ranges in told if ranges[number] is not None]
            if seen:
                layer.move(min(low for low, _ in seen), max(high for _, high in seen))
            layer.forget()

    def notes(self) -> dict[str, Any]:
        """Whether layers round yet; the ranges are buffers of the model."""
        return {"is_rounding": self._layers[0].is_rounding}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """As `notes` told; without them it begins with the next batch."""
        self._set(bool(notes.get("is_rounding", False)))

    def _set(self, is_rounding: bool) -> None:
        for layer in self._layers:
            layer.is_rounding = is_rounding


def reshape(config: Config, model: nn.Module) -> nn.Module:
    """Let the layers of a model learn to be int8, if the configuration asks for it.

    Raises:
        ConfigError: if it has none that could.
    """
    if config.compress.quantize == "none":
        return model
    model = with_fake_quantization(model)
    if not find_quantized(model):
        raise ConfigError(
            f"the model has no convolutions or linear layers (model.name: {config.model.name})",
            where="compress.quantize",
            hint="leave compress.quantize out",
        )
    return model


def make(config: Config, num_batches: int, model: nn.Module, group: Group) -> Technique | None:
    """The technique, if the model has layers that learn to be int8.

    Args:
        num_batches: the length of the run.
    """
    layers = find_quantized(model)
    if config.compress.quantize == "none" or not layers:
        return None
    check_meets(config, "compress.quantize")
    return Quantization(layers, math.floor(config.compress.quantize_begin * num_batches), group)
