"""How long trials take, learned from those that have ended. Pure.

A trial's seconds are its size (epochs or steps, which its configuration tells) times a rate that
depends on its point: log rate = intercept + weights . features, by ridge regression. Numbers are
features in [0, 1], logarithms where the space has them; choices are one feature each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.config.study import Parameter
from hpc_train.tune.space import Space, bounds

_RIDGE = 0.1
_FEWEST = 3  # trials before the point is looked at


class Durations:
    """Learns from seconds, and foretells them.

    Args:
        space: what trials differ in.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._rows: list[NDArray[np.float64]] = []
        self._rates: list[float] = []
        self._fitted: _Fit | None = None

    def learn(self, point: Mapping[str, Any], size: float, seconds: float) -> None:
        """Hear that `size` of a trial took `seconds` of one rank, both > 0."""
        if size > 0 and seconds > 0:
            self._rows.append(self._features(point))
            self._rates.append(math.log(seconds / size))
            self._fitted = None

    def foretell(self, point: Mapping[str, Any], size: float) -> float | None:
        """The seconds that one rank needs; None before any trial has ended."""
        if not self._rates:
            return None
        fit = self._fitted = self._fitted or _fit(self._rows, self._rates)
        if fit.weights is None:
            return size * math.exp(fit.mean)
        shift = float(self._features(point) @ fit.weights)
        return size * math.exp(fit.mean + min(max(shift, fit.low - 0.7), fit.high + 0.7))

    def _features(self, point: Mapping[str, Any]) -> NDArray[np.float64]:
        found = [1.0]
        for key, one in self._space.parameters.items():
            found += _features(one, point.get(key))
        return np.array(found)


def _features(one: Parameter, value: Any) -> list[float]:
    if one.choices is not None:
        return [float(value is not None and value == choice) for choice in one.choices]
    low, high = bounds(one)
    if value is None:
        return [0.5]
    if one.log:
        return [math.log(value / low) / math.log(high / low)]
    return [(value - low) / (high - low)]


@dataclass(frozen=True)
class _Fit:
    """The mean log rate, the extremes about it, and the weights, if there is enough to learn."""

    mean: float
    low: float
    high: float
    weights: NDArray[np.float64] | None


def _fit(rows: list[NDArray[np.float64]], rates: list[float]) -> _Fit:
    mean = float(np.mean(rates))
    weights = None
    if len(rates) >= _FEWEST:
        table = np.array(rows)
        gram = table.T @ table + _RIDGE * np.eye(table.shape[1])
        weights = np.asarray(np.linalg.solve(gram, table.T @ (np.array(rates) - mean)), np.float64)
    return _Fit(mean, min(rates) - mean, max(rates) - mean, weights)
