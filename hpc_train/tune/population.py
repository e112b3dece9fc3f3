"""Population-based training: who goes on from whose checkpoint, with which settings. Pure.

After each generation the worst part of the members copies the state of members drawn from the
best part (exploit), and changes its numbers: each is multiplied by one of a few factors, or drawn
anew (explore). M. Jaderberg et al., "Population based training of neural networks", 2017.

All members are compared after the same number of evaluations, so what is decided depends neither
on the number of ranks nor on their speed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_train.config.study import Parameter, Population
from hpc_train.errors import ConfigError
from hpc_train.philox import derive
from hpc_train.tune.space import Point, Space, ends

_STREAM = 0x706274  # of random bits

# sections whose keys may change while a run goes on
CHANGEABLE = ("optimizer", "learning_rate", "regularization", "augmentation")


@dataclass(frozen=True)
class Successor:
    """How a member goes on.

    Attributes:
        trial: the member.
        donor: whose checkpoint it goes on from; itself, if it is not replaced.
        params: its settings.
    """

    trial: int
    donor: int
    params: Point


def check(space: Space) -> None:
    """Check that a run can go on with other values of all parameters.

    Raises:
        ConfigError: if not.
    """
    for key, one in space.parameters.items():
        if key.split(".")[0] not in CHANGEABLE or key == "optimizer.name" or one.when:
            raise ConfigError(
                f"a population can search what may change while a run goes on ({key} may not)",
                where=f"space.{key}",
                hint=f"keys of {', '.join(CHANGEABLE)}, without conditions",
            )


def evolve(
    section: Population,
    space: Space,
    scores: Mapping[int, float],
    params: Mapping[int, Point],
    generation: int,
    seed: int,
) -> list[Successor]:
    """The next generation, in the order of the trials.

    Args:
        scores: what each member reached, the smaller the better; NaN is worst.
        params: their present settings.
        generation: counted from 1: the one that begins now.
        seed: of the study.
    """
    ranked = sorted(scores, key=lambda one: (_worst_last(scores[one]), one))
    count = max(1, int(section.quantile * len(ranked)))
    best, worst = ranked[:count], set(ranked[-count:])
    found = []
    for trial in sorted(scores):
        if trial not in worst:
            found.append(Successor(trial, trial, params[trial]))
            continue
        chance = random.Random(derive(seed, _STREAM, generation, trial))
        donor = chance.choice(best)
        found.append(Successor(trial, donor, explore(section, space, params[donor], chance)))
    return found


def explore(
    section: Population, space: Space, point: Mapping[str, Any], chance: random.Random
) -> Point:
    """A point near another one."""
    return {
        key: _anew(one, chance)
        if chance.random() < section.resample
        else _near(one, point[key], section.factors, chance)
        for key, one in space.parameters.items()
    }


def _worst_last(score: float) -> float:
    return score if math.isfinite(score) else math.inf


def _anew(one: Parameter, chance: random.Random) -> Any:
    if one.choices is not None:
        return chance.choice(one.choices)
    low, high = ends(one)
    if one.log:
        return _kind(one, math.exp(chance.uniform(math.log(low), math.log(high))))
    return _kind(one, chance.uniform(low, high))


def _near(one: Parameter, value: Any, factors: Sequence[float], chance: random.Random) -> Any:
    if one.choices is not None:
        place = one.choices.index(value) + chance.choice([-1, 1])
        return one.choices[min(max(place, 0), len(one.choices) - 1)]
    return _kind(one, value * chance.choice(factors))


def _kind(one: Parameter, value: float) -> Any:
    """A number in range and of the right type."""
    low, high = ends(one)
    value = min(max(value, low), high)
    if one.step is not None:
        value = low + round((value - low) / one.step) * one.step
    return round(value) if one.type == "int" else float(value)
