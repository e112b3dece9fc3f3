"""Batch norm over the whole global batch, however it is split among ranks; shares of 0 included.

    forward    each rank  count, sum (x - k), sum (x - k)^2 per channel   --sum over ranks-->
               mean and variance of the global batch; k is the running mean, the same on all ranks
    backward   each rank  sum dy, sum dy (x - mean) per channel           --sum over ranks-->
               dx = w / std (dy - mean dy - (x - mean) / var * mean(dy (x - mean)))

Ioffe and Szegedy, "Batch normalization", ICML 2015. All sums have one length and begin with a
flag: a rank that fails in a step joins whichever sum the others are in, and all leave together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from hpc_train.errors import HpcTrainError, PeerError
from hpc_train.record import phase

Sum = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Meeting:
    """Where the ranks meet inside a step: sums of one length, which tell of failures, too."""

    def __init__(self) -> None:
        self._sum: Sum | None = None
        self._length = 1
        self._is_open = False

    def make_room(self, channels: int) -> None:
        """Let sums be long enough for a layer."""
        self._length = max(self._length, 2 + 2 * channels)

    def attach(self, sum_over_ranks: Sum) -> None:
        """Say how vectors are summed over the ranks; without it a rank is alone."""
        self._sum = sum_over_ranks

    @contextmanager
    def step(self) -> Iterator[None]:
        """Around what all ranks do in a step: they enter and leave together.

        Raises:
            PeerError: on the ranks that did not fail, if one did.
        """
        self._is_open = True
        try:
            yield
        except Exception:
            if self._is_open:
                self._exchange(np.zeros(0), failed=True)
            raise
        else:
            self._exchange(np.zeros(0), failed=False)
        finally:
            self._is_open = False

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over the ranks, inside a step; elsewhere `values` themselves.

        Args:
            values: float64, one axis.
        """
        if not self._is_open or self._sum is None:
            return values
        total = self._exchange(values.detach().cpu().numpy(), failed=False)
        return torch.from_numpy(total[: len(values)]).to(values.device)

    def _exchange(self, values: NDArray[np.float64], *, failed: bool) -> NDArray[np.float64]:
        if self._sum is None:
            return values
        vector = np.zeros(self._length)
        vector[0] = failed
        vector[1 : 1 + len(values)] = values
        self._is_open = False  # if the sum itself fails, there is no use in trying another one
        with phase("communication", operation="batch norm"):
            total = self._sum(vector)
        if total[0] and not failed:
            raise PeerError("another rank failed in this step")
        self._is_open = True
        return total[1:]


class SyncBatchNorm(_BatchNorm):
    """A batch norm of any number of axes whose statistics are those of all ranks' samples.

    Args:
        plain: the layer in whose place it stands, whose parameters and buffers it takes over.
        meeting: where the ranks meet.
    """

    def __init__(self, plain: _BatchNorm, meeting: Meeting) -> None:
        super().__init__(
            plain.num_features,
            plain.eps,
            plain.momentum,
            plain.affine,
            plain.track_running_stats,
        )
        self.weight, self.bias = plain.weight, plain.bias
        self.running_mean, self.running_var = plain.running_mean, plain.running_var
        self.num_batches_tracked = plain.num_batches_tracked
        self.meeting = meeting
        meeting.make_room(plain.num_features)
        self.train(plain.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 - torch's own name
        """Inputs of shape (n, channels, ...) or (n, channels)."""
        uses_batch = self.training or self.running_mean is None
        if not uses_batch:
            return functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        out, mean, var, count = _Normalize.apply(  # type: ignore[no-untyped-call]
            input, self.weight, self.bias, self.running_mean, self.eps, self.meeting
        )
        if self.training and self.running_mean is not None:
            self._remember(mean, var, float(count))
        normalized: torch.Tensor = out
        return normalized

    def _remember(self, mean: torch.Tensor, var: torch.Tensor, count: float) -> None:
        """Running statistics, with the unbiased variance, as torch has them."""
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:
            momentum = 1 / float(self.num_batches_tracked)
        unbiased = var * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var), momentum)


class _Normalize(torch.autograd.Function):
    """The normalisation and its gradient; gives statistics in float64 beside the output."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        shift: torch.Tensor | None,
        eps: float,
        meeting: Meeting,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Output like x, of shape (n, channels, ...); mean and variance (channels,), and count."""
        wide = x if x.dtype == torch.float64 else x.float()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        k = wide.new_zeros(x.shape[1]) if shift is None else shift.to(wide)
        near = wide - _as(k, x)
        first = near.sum(axes, dtype=torch.float64)
        second = near.square().sum(axes, dtype=torch.float64)
        here = first.new_tensor([x.numel() // x.shape[1]])
        total = meeting.sum(torch.cat((here, first, second)))
        count, (first, second) = total[0], total[1:].chunk(2)
        if count <= 1:
            raise HpcTrainError(
                "batch norm needs more than one value per channel in a global batch "
                f"(values: {int(count)})",
                hint="set a larger data.batch_size",
            )
        var = (second / count - (first / count).square()).clamp(min=0)
        mean = k.double() + first / count
        invstd = (var + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, invstd, count)
        ctx.meeting = meeting
        out = (wide - _as(mean, x).to(wide)) * _as(invstd, x).to(wide)
        if weight is not None and bias is not None:
            out = out * _as(weight, x) + _as(bias, x)
        ctx.mark_non_differentiable(mean, var, count)
        return out.to(x.dtype), mean, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor, *_: Any) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, like x, of weight and of bias (channels,); nothing for the rest."""
        x, weight, mean, invstd, count = ctx.saved_tensors
        wide = x if x.dtype == torch.float64 else x.float()
        grad = grad.to(wide)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        centered = wide - _as(mean, x).to(wide)
        first = grad.sum(axes, dtype=torch.float64)
        second = (grad * centered).sum(axes, dtype=torch.float64)
        total = ctx.meeting.sum(torch.cat((first, second)))
        mean_grad, mean_product = (part / count for part in total.chunk(2))
        slope = mean_product * invstd.square()
        inner = grad - _as(mean_grad, x).to(wide) - centered * _as(slope, x).to(wide)
        scale = invstd if weight is None else invstd * weight.double()
        grad_x = (inner * _as(scale, x).to(wide)).to(x.dtype)
        if weight is None:
            return grad_x, None, None, None, None, None
        grad_weight, grad_bias = (second * invstd).to(weight), first.to(weight)
        return grad_x, grad_weight, grad_bias, None, None, None


def _as(channels: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """A vector of channels, shaped to go with (n, channels, ...)."""
    return channels.view(1, -1, *[1] * (like.dim() - 2))


def synchronize(model: nn.Module) -> nn.Module:
    """Put a `SyncBatchNorm` in the place of each batch norm of a model; all share one meeting.

    Returns:
        The model; or its successor, if the model itself is a batch norm.
    """
    meeting = Meeting()
    if isinstance(model, _BatchNorm):
        return SyncBatchNorm(model, meeting)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, _BatchNorm) and not isinstance(child, SyncBatchNorm):
                setattr(module, name, SyncBatchNorm(child, meeting))
    return model


def find_meeting(model: nn.Module) -> Meeting | None:
    """Where the ranks meet in a model's layers; None if it has no such layers."""
    layers = (module for module in model.modules() if isinstance(module, SyncBatchNorm))
    return next((layer.meeting for layer in layers), None)


def has_plain(model: nn.Module) -> bool:
    """Whether a model has batch norms whose statistics are those of one rank's samples."""
    layers = (module for module in model.modules() if isinstance(module, _BatchNorm))
    return any(not isinstance(layer, SyncBatchNorm) for layer in layers)
