"""Augmentations that move pixels: flip, crop, rotation, shift, scale, shear."""

from __future__ import annotations

import math

import torch

from hpc_train.augment.augmentation import Draws
from hpc_train.augment.checks import check_count, check_range
from hpc_train.errors import ConfigError, unknown


class Flip:
    """Mirrored; every other sample, if no probability is given.

    Args:
        axis: horizontal (left becomes right) or vertical.
    """

    num_draws = 0
    probability = 0.5

    def __init__(self, axis: str = "horizontal") -> None:
        if axis not in ("horizontal", "vertical"):
            raise ConfigError(
                unknown("axis", str(axis), ("horizontal", "vertical")), where="augmentation"
            )
        self._signs = (-1.0, 1.0) if axis == "horizontal" else (1.0, -1.0)

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """Minus one on one axis."""
        ones = torch.ones_like(draws.uniform.sum(1))
        return _affine(self._signs[0] * ones, 0, 0, self._signs[1] * ones, 0, 0)


class Crop:
    """Padded with zeros on all sides, then cut to its old size at a random place.

    Args:
        padding: pixels on each side, >= 1.
    """

    num_draws = 2

    def __init__(self, padding: int = 4) -> None:
        check_count("padding", padding)
        self._padding = padding

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """Whole pixels in [-padding, padding] on both axes."""
        many = 2 * self._padding + 1
        x, y = ((draws.uniform[:, i] * many).floor() - self._padding for i in (0, 1))
        return _affine(1, 0, 0, 1, x, y)


class Rotation:
    """Turned about its centre.

    Args:
        degrees: largest angle, in (0, 180].
    """

    num_draws = 1

    def __init__(self, degrees: float = 15.0) -> None:
        check_range("degrees", degrees, 1e-9, 180, "a number in (0, 180]")
        self._radians = math.radians(degrees)

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """An angle in [-degrees, degrees)."""
        angle = draws.between(0, -self._radians, self._radians)
        return _affine(angle.cos(), -angle.sin(), angle.sin(), angle.cos(), 0, 0)


class Shift:
    """Moved to the side.

    Args:
        fraction: largest way on each axis, as a part of the image's size, in (0, 1].
    """

    num_draws = 2

    def __init__(self, fraction: float = 0.1) -> None:
        check_range("fraction", fraction, 1e-9, 1, "a number in (0, 1]")
        self._fraction = fraction

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """Parts of a pixel, too."""
        x = draws.between(0, -self._fraction, self._fraction) * width
        y = draws.between(1, -self._fraction, self._fraction) * height
        return _affine(1, 0, 0, 1, x, y)


class Scale:
    """Made larger or smaller about its centre.

    Args:
        smallest, largest: factors on its size, > 0; smallest <= largest.
    """

    num_draws = 1

    def __init__(self, smallest: float = 0.9, largest: float = 1.1) -> None:
        check_range("smallest", smallest, 1e-3, 1e3, "a number in [0.001, 1000]")
        check_range("largest", largest, smallest, 1e3, f"a number in [{smallest}, 1000]")
        self._logs = math.log(smallest), math.log(largest)

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """Evenly in the logarithm, so that larger and smaller are equally likely."""
        factor = draws.between(0, *self._logs).neg().exp()
        return _affine(factor, 0, 0, factor, 0, 0)


class Shear:
    """Slanted along its rows.

    Args:
        degrees: largest angle, in (0, 80].
    """

    num_draws = 1

    def __init__(self, degrees: float = 10.0) -> None:
        check_range("degrees", degrees, 1e-9, 80, "a number in (0, 80]")
        self._radians = math.radians(degrees)

    def matrices(self, draws: Draws, height: int, width: int) -> torch.Tensor:
        """An angle in [-degrees, degrees)."""
        return _affine(1, draws.between(0, -self._radians, self._radians).tan(), 0, 1, 0, 0)


def _affine(*entries: torch.Tensor | float) -> torch.Tensor:
    """Matrices [[a, b, x], [c, d, y]] from a, b, c, d, x, y, shape (n, 2, 3)."""
    like = next(e for e in entries if isinstance(e, torch.Tensor))
    a, b, c, d, x, y = (
        e if isinstance(e, torch.Tensor) else torch.full_like(like, float(e)) for e in entries
    )
    return torch.stack((a, b, x, c, d, y), dim=-1).view(-1, 2, 3)
