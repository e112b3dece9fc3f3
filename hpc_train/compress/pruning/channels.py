"""Whole channels and neurons go, so that the network can be rebuilt smaller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from hpc_train.compress.graph import CONSUMED, Coupling, Space, couple
from hpc_train.compress.reconstruct import alive, importance

_STATISTICS = ("running_mean", "running_var")


def choose(
    coupling: Coupling,
    scores: Sequence[Sequence[float]],
    kept: Sequence[Sequence[int]],
    target: float,
    multiple: int,
) -> list[list[int]]:
    """Which channels stay, so that the network needs at most `target` operations for a sample.

    Again and again those channels of a space go that cost least importance for the operations
    they save, `multiple` at a time (a quarter of a small space), until it is enough or each space
    has only as many left.

    Args:
        scores: importance of each channel of each space.
        kept: channels of each space that are left.
        target: operations for one sample.
        multiple: >= 1.
    """
    left = [sorted(channels, key=lambda c, s=own: (s[c], c)) for channels, own in zip(kept, scores, strict=True)]  # type: ignore[misc] # noqa: E501  # fmt: skip
    steps = [min(multiple, max(1, space.size // 4)) for space in coupling.spaces]
    now = coupling.flops([len(channels) for channels in left])
    while now > target:
        options = []
        for number, (channels, step) in enumerate(zip(left, steps, strict=True)):
            if len(channels) < 2 * step:
                continue
            counts = [len(c) - step * (n == number) for n, c in enumerate(left)]
            after = coupling.flops(counts)
            lost = sum(scores[number][channel] for channel in channels[:step])
            options.append((lost / max(now - after, 1e-9), number, after))
        if not options:
            break
        _, number, now = min(options)
        left[number] = left[number][steps[number] :]
    return [sorted(channels) for channels in left]


class Channels:
    """Zeroes whole channels, with all that produces them, until `amount` of the operations go.

    Li et al., "Pruning filters for efficient convnets", ICLR 2017; channels that hang together
    (see `graph`) go together: Fang et al., "DepGraph", CVPR 2023.

    Args:
        model: the network; weights are read whenever masks are made.
        example: what it takes, shape (n, ...).
        amount: in (0, 1), of the operations of convolutions and linear layers.
        multiple: how many channels go at a time.
        passing: see `couple`.

    Raises:
        UsageError: if torch.fx cannot trace the model.
    """

    wants_gradients = False

    def __init__(
        self,
        model: nn.Module,
        example: torch.Tensor,
        amount: float,
        multiple: int,
        passing: tuple[type[nn.Module], ...] = (),
    ) -> None:
        self._model = model
        self._coupling = couple(model, example, passing)
        self._amount, self._multiple = amount, multiple
        self.names = tuple(dict.fromkeys(n for s in self._coupling.spaces for n in _zeroed(s)))

    def masks(
        self, masks: Mapping[str, torch.Tensor], squares: Mapping[str, torch.Tensor], part: float
    ) -> dict[str, torch.Tensor]:
        """See `Pruner`."""
        spaces = self._coupling.spaces
        scores = [importance(self._model, space).tolist() for space in spaces]
        target = (1 - self._amount * part) * self._coupling.flops([s.size for s in spaces])
        before = [alive(self._model, space) for space in spaces]
        kept = choose(self._coupling, scores, before, target, self._multiple)
        found = {name: mask.clone() for name, mask in masks.items()}
        for space, channels in zip(spaces, kept, strict=True):
            stays = torch.zeros(space.size, dtype=torch.bool)
            stays[channels] = True
            for name, axes in _zeroed(space).items():
                shape = [1] * masks[name].dim()
                shape[axes] = space.size
                found[name] &= stays.to(masks[name].device).view(shape)
        return found


def _zeroed(space: Space) -> dict[str, int]:
    """The parameters that are zero where a channel is gone, and along which axis."""
    return {
        slot.name: slot.axis
        for slot in space.slots
        if slot.role != CONSUMED and slot.tensor not in _STATISTICS
    }
