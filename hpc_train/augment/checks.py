"""Checks of the arguments of augmentations."""

from __future__ import annotations

import math

from hpc_train.errors import ConfigError


def check_range(name: str, value: object, low: float, high: float, rule: str) -> None:
    """Check that an argument is a number in [low, high].

    Raises:
        ConfigError: naming argument, rule and value.
    """
    is_number = type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]
    if not is_number or not low <= value <= high:  # type: ignore[operator]
        raise ConfigError(f"{name} must be {rule} ({name}: {value!r})", where="augmentation")


def check_count(name: str, value: object, least: int = 1) -> None:
    """Check that an argument is an integer of at least `least`.

    Raises:
        ConfigError: naming argument, rule and value.
    """
    if type(value) is not int or value < least:
        raise ConfigError(
            f"{name} must be an integer >= {least} ({name}: {value!r})", where="augmentation"
        )
