"""Dropout whose masks are keyed by sample: the same on any number of ranks, in any micro-batch.

Torch's layers draw for a micro-batch as a whole, so that a sample's mask depends on how a batch is
split. Srivastava et al., "Dropout", JMLR 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from hpc_train.errors import HpcTrainError
from hpc_train.keyed import words
from hpc_train.philox import derive

STREAM = 19  # of all masks


@dataclass
class Present:
    """Which samples the model is given; all keyed layers of a model share one."""

    seed: int
    epoch: int = 0
    ids: torch.Tensor | None = None


class KeyedDropout(nn.Module):
    """Drops elements with probability `p` in training, and scales those that stay by 1 / (1 - p).

    A layer that is called several times in one forward uses one mask for all its calls, so that
    activation checkpointing, which calls it again, changes nothing.

    Args:
        p: in (0, 1).
        num_axes: how many axes a mask has: None for one entry per element; 1 for one per channel
            of (n, channels, ...), like `nn.Dropout2d`.
        present: which samples the inputs (n, ...) belong to.
        number: of the layer in its model: layers have masks of their own.
    """

    def __init__(self, p: float, num_axes: int | None, present: Present, number: int) -> None:
        super().__init__()
        self.p = p
        self._num_axes = num_axes
        self._present = present
        self._number = number

    def extra_repr(self) -> str:
        """Its probability."""
        return f"p={self.p}"

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Inputs of shape (n, ...) whose rows are the present samples."""
        if not self.training or len(inputs) == 0:
            return inputs
        present = self._present
        if present.ids is None or len(present.ids) != len(inputs):
            known = 0 if present.ids is None else len(present.ids)
            raise HpcTrainError(
                "regularization.dropout needs layers whose first axis is the sample "
                f"(samples: {known}, shape: {tuple(inputs.shape)})",
                hint="leave it out, and give the model its own dropout",
            )
        axes = inputs.shape[1:] if self._num_axes is None else inputs.shape[1 : 1 + self._num_axes]
        seed = derive(present.seed, STREAM, self._number)
        ids = present.ids.to(inputs.device)
        drawn = words(seed, present.epoch, ids, axes.numel())
        stays = (drawn >= int(self.p * 2**32)).view(len(inputs), *axes)
        stays = stays.view(*stays.shape, *[1] * (inputs.dim() - stays.dim()))
        return inputs * (stays.to(inputs.dtype) / (1 - self.p))


# kinds of torch's layers -> axes of a mask
_KINDS: dict[type[nn.Module], int | None] = {
    nn.Dropout: None,
    nn.Dropout1d: 1,
    nn.Dropout2d: 1,
    nn.Dropout3d: 1,
}


def replace_dropout(model: nn.Module, p: float, seed: int) -> Present | None:
    """Put a keyed layer with probability `p` in the place of each dropout layer of a model.

    Returns:
        What is to be told which samples the model is given; None if there was no such layer.
    """
    present, number = Present(seed), 0
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in _KINDS:
                keyed = KeyedDropout(p, _KINDS[type(child)], present, number)
                setattr(module, name, keyed.train(child.training))
                number += 1
    return present if number else None


def find_present(model: nn.Module) -> Present | None:
    """What the keyed layers of a model share; None if it has none."""
    layers = (module for module in model.modules() if isinstance(module, KeyedDropout))
    return next((layer._present for layer in layers), None)
