"""What an augmentation is, and how a list of them is applied to a batch.

    inputs (n, *shape) --first--> --second--> ...      each sample by its own random numbers
                       `----.----´
             neighbours that only move pixels are one movement: pixels are interpolated once

The numbers of a sample are a function of (seed, place in the list, epoch, sample id).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol, runtime_checkable

import torch
from torch.nn import functional

from hpc_train.errors import ConfigError
from hpc_train.keyed import uniforms
from hpc_train.philox import derive

STREAM = 18  # of all random numbers of augmentations


@dataclass(frozen=True)
class Draws:
    """The random numbers of the samples of a batch, for one augmentation.

    Attributes:
        uniform: in [0, 1), float64, shape (n, num_draws of the augmentation).
        seed, epoch, ids: for those that need more, see `keyed.words`.
    """

    uniform: torch.Tensor
    seed: int
    epoch: int
    ids: torch.Tensor

    def between(self, number: int, low: float, high: float) -> torch.Tensor:
        """Draw `number` of each sample, spread over [low, high), float64, shape (n,)."""
        return low + (high - low) * self.uniform[:, number]


@runtime_checkable
class Movement(Protocol):
    """An augmentation that moves pixels."""

    num_draws: int

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """Where the pixels of the result come from, float64, shape (n, 2, 3).

        Each is an affine map of places (x, y) in pixels from the centre of the image.
        """


@runtime_checkable
class Change(Protocol):
    """An augmentation that changes values."""

    num_draws: int

    def apply(self, inputs: torch.Tensor, draws: Draws) -> torch.Tensor:
        """The changed samples, of the same shape (n, *shape) as `inputs`, which are left alone."""


Augmentation = Movement | Change


@dataclass(frozen=True)
class Chosen:
    """One entry of the list: an augmentation, and how probable it is for a sample."""

    augmentation: Augmentation
    probability: float
    place: int


class Pipeline:
    """A list of augmentations for one input.

    Args:
        chosen: augmentations with their probabilities, in their order.
        seed: of the run.
    """

    def __init__(self, chosen: Sequence[Chosen], seed: int) -> None:
        self._seed = seed
        self._groups = [
            (moves, list(group))
            for moves, group in groupby(chosen, key=lambda c: isinstance(c.augmentation, Movement))
        ]

    def __call__(self, inputs: torch.Tensor, epoch: int, ids: torch.Tensor) -> torch.Tensor:
        """The samples as they are trained on.

        Args:
            inputs: floating-point, shape (n, *shape).
            epoch: of the run.
            ids: which samples they are, shape (n,).

        Raises:
            ConfigError: if an augmentation cannot work on inputs of that shape.
        """
        if len(ids) == 0:
            return inputs
        ids = ids.to(inputs.device)
        for moves, group in self._groups:
            if moves:
                inputs = self._moved(inputs, group, epoch, ids)
                continue
            for one in group:
                is_chosen, draws = self._draw(one, epoch, ids)
                changed = one.augmentation.apply(inputs, draws)  # type: ignore[union-attr]
                where = is_chosen.view(-1, *[1] * (inputs.dim() - 1))
                inputs = changed if one.probability == 1 else torch.where(where, changed, inputs)
        return inputs

    def _moved(
        self, images: torch.Tensor, group: Sequence[Chosen], epoch: int, ids: torch.Tensor
    ) -> torch.Tensor:
        """All movements of a group as one."""
        if images.dim() != 4:
            raise ConfigError(
                "augmentations that move pixels need images of shape (channels, height, width) "
                f"(shape: {tuple(images.shape[1:])})",
                where="augmentation",
            )
        height, width = images.shape[2:]
        total = torch.eye(3, dtype=torch.float64, device=images.device).repeat(len(ids), 1, 1)
        for matrices in self._matrices(group, epoch, ids, height, width):
            total = total @ matrices
        return move(images, total[:, :2])

    def _matrices(
        self, group: Sequence[Chosen], epoch: int, ids: torch.Tensor, height: int, width: int
    ) -> Iterator[torch.Tensor]:
        identity = torch.eye(3, dtype=torch.float64, device=ids.device)
        for one in group:
            is_chosen, draws = self._draw(one, epoch, ids)
            matrices = identity.repeat(len(ids), 1, 1)
            matrices[:, :2] = one.augmentation.matrices(draws, height, width)  # type: ignore[union-attr]
            yield torch.where(is_chosen[:, None, None], matrices, identity)

    def _draw(self, one: Chosen, epoch: int, ids: torch.Tensor) -> tuple[torch.Tensor, Draws]:
        """Whether each sample is changed, shape (n,), and its numbers."""
        seed = derive(self._seed, STREAM, one.place, 0)
        uniform = uniforms(seed, epoch, ids, 1 + one.augmentation.num_draws)
        more = derive(self._seed, STREAM, one.place, 1)
        return uniform[:, 0] < one.probability, Draws(uniform[:, 1:], more, epoch, ids)


def move(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Each image moved, bilinear between pixels, zeros from outside.

    Args:
        images: shape (n, channels, height, width).
        matrices: see `Movement.matrices`.
    """
    height, width = images.shape[2:]
    # to the coordinates of affine_grid, in which an image spans [-1, 1] on both axes
    size = matrices.new_tensor([width / 2, height / 2, 1.0])
    normalized = matrices * size / size[:2, None]
    grid = functional.affine_grid(normalized, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid.to(images.dtype), align_corners=False)
