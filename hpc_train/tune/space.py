"""What is searched: parameters over keys of the configuration, some only where others say so. Pure.

    "optimizer.name"      categorical  sgd | adamw
    "optimizer.momentum"  float 0 .. 0.99     when "optimizer.name" = "sgd"

A point is a table from the keys of its active parameters to values that the configuration can
hold. Parameters are asked for in an order in which conditions come first.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpc_train.config.study import Parameter
from hpc_train.errors import ConfigError, unknown

Point = dict[str, Any]

_MOST_POINTS = 100_000


@dataclass(frozen=True)
class Space:
    """All parameters, those that others depend on first."""

    parameters: Mapping[str, Parameter]

    @classmethod
    def ordered(cls, parameters: Mapping[str, Parameter]) -> Space:
        """The space in an order in which conditions are known when they are asked.

        Raises:
            ConfigError: if a condition names no parameter, none of its values, or itself.
        """
        left, found = dict(parameters), dict[str, Parameter]()
        for key, one in parameters.items():
            for other, wanted in one.when.items():
                _check_condition(key, other, wanted, parameters)
        while left:
            ready = [key for key, one in left.items() if not one.when.keys() & left.keys()]
            if not ready:
                raise ConfigError(
                    f"conditions must not go round in a circle ({', '.join(left)})", where="space"
                )
            for key in ready:
                found[key] = left.pop(key)
        return cls(found)

    def ask(self, suggest: Callable[[str, Parameter], Any]) -> Point:
        """A point, of which `suggest` gives each active value."""
        point: Point = {}
        for key, one in self.parameters.items():
            if active(one, point):
                point[key] = suggest(key, one)
        return point

    def contains(self, point: Mapping[str, Any]) -> bool:
        """Whether `point` has a value in range for each active parameter, and no others."""
        wanted = {key for key, one in self.parameters.items() if active(one, point)}
        return wanted == point.keys() and all(
            in_range(self.parameters[key], value) for key, value in point.items()
        )

    def grid(self) -> list[Point]:
        """All points of the grid, each once, the last parameter fastest.

        Raises:
            ConfigError: for a float without `points` or `step`, or too many points.
        """
        axes = {key: values_of(key, one) for key, one in self.parameters.items()}
        count = math.prod(len(axis) for axis in axes.values())
        if count > _MOST_POINTS:
            raise ConfigError(f"a grid must have up to {_MOST_POINTS} points (points: {count})")
        seen: dict[str, Point] = {}
        for values in itertools.product(*axes.values()):
            whole = dict(zip(axes, values, strict=True))
            point = self.ask(lambda key, _, whole=whole: whole[key])  # type: ignore[misc]
            seen.setdefault(json.dumps(point), point)
        return list(seen.values())

    def corners(self) -> Iterator[Point]:
        """Points in which, together, each parameter takes its extreme values (all its choices)."""
        for key, one in self.parameters.items():
            for value in ends(one):
                yield self._with(key, value)

    def _with(self, key: str, value: Any) -> Point:
        """A point in which `key` has `value`, and what it depends on fits."""
        fixed = {key: value}
        waiting = [key]
        while waiting:
            for other, wanted in self.parameters[waiting.pop()].when.items():
                fixed.setdefault(other, wanted)
                waiting.append(other)
        return self.ask(lambda name, one: fixed.get(name, ends(one)[0]))


def active(one: Parameter, point: Mapping[str, Any]) -> bool:
    """Whether a parameter is asked for, given what was chosen before it."""
    return all(key in point and point[key] == wanted for key, wanted in one.when.items())


def bounds(one: Parameter) -> tuple[float, float]:
    """The smallest and largest value of a float or int.

    Raises:
        TypeError: for a categorical.
    """
    if one.low is None or one.high is None:
        raise TypeError("a categorical has no bounds")
    return one.low, one.high


def ends(one: Parameter) -> list[Any]:
    """The smallest and largest value of a number; all choices of a categorical."""
    if one.choices is not None:
        return list(one.choices)
    kind = int if one.type == "int" else float
    return [kind(value) for value in bounds(one)]


def in_range(one: Parameter, value: Any) -> bool:
    """Whether a parameter can have that value."""
    if one.choices is not None:
        return value in one.choices
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    low, high = bounds(one)
    return low <= value <= high and (one.type == "float" or value == int(value))


def values_of(key: str, one: Parameter) -> list[Any]:
    """The values of a parameter in a grid."""
    if one.choices is not None:
        return list(one.choices)
    low, high = ends(one)
    if one.points is not None:
        return _spread(low, high, one)
    if one.step is not None or one.type == "int":
        step = one.step or 1
        found = [low + number * step for number in range(int((high - low) / step + 1e-9) + 1)]
        return [int(value) for value in found] if one.type == "int" else found
    raise ConfigError(f"a float in a grid must have points or step ({key})", where=f"space.{key}")


def _spread(low: float, high: float, one: Parameter) -> list[Any]:
    count = one.points or 1
    places = [0.5] if count == 1 else [number / (count - 1) for number in range(count)]
    if one.log:
        found = [low * (high / low) ** place for place in places]
    else:
        found = [low + (high - low) * place for place in places]
    if one.type == "float":
        return found
    return list(dict.fromkeys(round(value) for value in found))


def _check_condition(key: str, other: str, wanted: Any, known: Mapping[str, Parameter]) -> None:
    if other not in known:
        raise ConfigError(unknown("parameter", other, known), where=f"space.{key}.when")
    if not in_range(known[other], wanted):
        known_values = ", ".join(map(repr, ends(known[other])))
        raise ConfigError(
            f"a condition must name a value of {other} ({wanted!r})",
            where=f"space.{key}.when",
            hint=f"{'one of' if known[other].choices else 'from, to'} {known_values}",
        )
