"""Training that knows of int8: layers compute with rounded weights and inputs.

    weights    symmetric, a scale for each output channel: 127 steps up to its largest magnitude
    inputs     a range for the tensor, in 128 steps: every x86 CPU can sum them without overflow

Jacob et al., "Quantization and training of neural networks", CVPR 2018. A scale for each channel
makes it the same whether a batch norm behind a convolution is folded into it or not.

The range of inputs is held still within a step, and moves after it by what all ranks have seen of
the global batch: so the result does not depend on how the batch was split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

WEIGHT_STEPS = 127
INPUT_STEPS = 127
MOMENTUM = 0.05  # of a new range in the running one
_TINY = 1e-12


def round_weights(weights: torch.Tensor) -> torch.Tensor:
    """Weights as int8 holds them, of the same shape; gradients pass unchanged.

    Args:
        weights: shape (channels, ...).
    """
    with torch.no_grad():
        largest = weights.flatten(1).abs().amax(1).clamp_min(_TINY)
        scale = (largest / WEIGHT_STEPS).view(-1, *[1] * (weights.dim() - 1))
        rounded = torch.round(weights / scale) * scale
    return weights + (rounded - weights).detach()


def round_inputs(inputs: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Inputs in 128 steps from `low` to `high`; gradients pass where they are inside.

    Args:
        inputs: any shape.
        low, high: shape (), low <= 0 <= high.
    """
    with torch.no_grad():
        scale = ((high - low) / INPUT_STEPS).clamp_min(_TINY)
        zero = torch.round(-low / scale)
        bottom, top = -zero * scale, (INPUT_STEPS - zero) * scale
    inside = inputs.clamp(bottom.to(inputs.dtype), top.to(inputs.dtype))
    with torch.no_grad():
        rounded = torch.round(inside / scale) * scale
    difference: torch.Tensor = rounded.to(inside.dtype) - inside
    return inside + difference.detach()


class QuantizedLayer:
    """What a convolution or a linear layer has besides, while it learns to be int8.

    Attributes:
        input_low, input_high: buffers, the running range of inputs; NaN before the first step.
        is_rounding: whether it computes with rounded numbers yet.
        seen: (smallest, largest) input since `forget`, None if there was none.
    """

    input_low: torch.Tensor
    input_high: torch.Tensor
    is_rounding: bool
    seen: tuple[float, float] | None

    def forget(self) -> None:
        """Before a step."""
        self.seen = None

    def look(self, inputs: torch.Tensor) -> None:
        """Remember the range of what comes in, in training alone."""
        low, high = (float(value) for value in inputs.detach().aminmax())
        if self.seen is not None:
            low, high = min(low, self.seen[0]), max(high, self.seen[1])
        self.seen = low, high

    def move(self, low: float, high: float) -> None:
        """After a step: move the running range towards that of the global batch.

        What is not finite is not followed.
        """
        if not (math.isfinite(low) and math.isfinite(high)):
            return
        for buffer, value in ((self.input_low, min(low, 0.0)), (self.input_high, max(high, 0.0))):
            old = float(buffer)
            buffer.fill_(value if math.isnan(old) else old + MOMENTUM * (value - old))

    def rounded(
        self, inputs: torch.Tensor, weights: torch.Tensor, *, training: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and weights to compute with."""
        if training and torch.is_grad_enabled() and inputs.numel():
            self.look(inputs)
        if not self.is_rounding:
            return inputs, weights
        if not math.isnan(float(self.input_high)):
            inputs = round_inputs(inputs, self.input_low, self.input_high)
        return inputs, round_weights(weights)


class QuantizedConv2d(nn.Conv2d, QuantizedLayer):
    """A convolution that computes as int8 will."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        inputs, weights = self.rounded(input, self.weight, training=self.training)
        outputs: torch.Tensor = self._conv_forward(inputs, weights, self.bias)
        return outputs


class QuantizedLinear(nn.Linear, QuantizedLayer):
    """A linear layer that computes as int8 will."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        inputs, weights = self.rounded(input, self.weight, training=self.training)
        return functional.linear(inputs, weights, self.bias)


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: QuantizedConv2d,
    nn.Linear: QuantizedLinear,
}


def with_fake_quantization(model: nn.Module) -> nn.Module:
    """Let all convolutions and linear layers of a model learn to be int8.

    Their weights keep their names; each gets the buffers `input_low` and `input_high`. The layers
    are changed in place: what hangs on them (hooks, tied weights) stays.

    Returns:
        The model.
    """
    for module in model.modules():
        kind = _KINDS.get(type(module))
        if kind is None:
            continue
        module.__class__ = kind
        assert isinstance(module, QuantizedLayer)
        weight = next(module.parameters())
        for name in ("input_low", "input_high"):
            nan = torch.full((), math.nan, dtype=weight.dtype, device=weight.device)
            module.register_buffer(name, nan)
        module.is_rounding = False
        module.forget()
    return model


def find_quantized(model: nn.Module) -> Sequence[QuantizedLayer]:
    """The layers of a model that learn to be int8, in a fixed order."""
    return [module for module in model.modules() if isinstance(module, QuantizedLayer)]
