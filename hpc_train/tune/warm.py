"""What earlier studies knew: their points and results, or only the region of the good ones.

A source is the folder of a study, its journal, or a CSV file with a column for each parameter
and one for each metric, named as in the space and the objective.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hpc_train.config.study import Parameter, Study
from hpc_train.errors import ConfigError
from hpc_train.tune import journal
from hpc_train.tune.history import COMPLETE, replay
from hpc_train.tune.space import Space, bounds

Known = dict[str, Any]

_GAP = 0.2  # of a parameter's range: wider ones part points
_MARGIN = 0.1  # of the width of what they cover


def load(study: Study, space: Space) -> list[Known]:
    """The trials of all sources whose points lie in the space: params and values.

    Raises:
        ConfigError: if a source cannot be read, lacks a metric, or fits in no point.
    """
    found: list[Known] = []
    for name in study.history.sources:
        path = Path(name).expanduser()
        if path.is_dir():
            path = path / journal.NAME
        if not path.is_file():
            raise ConfigError(f'no journal or CSV file in "{name}"', where="history.sources")
        rows = _from_csv(path, study) if path.suffix == ".csv" else _from_journal(path, study)
        fitting = [row for row in rows if space.contains(row["params"])]
        if not fitting:
            raise ConfigError(
                f"none of its {len(rows)} trials lies in the space",
                where=str(path),
                hint=f"the parameters are {', '.join(space.parameters)}",
            )
        found += fitting
    return found


def good(known: Sequence[Known], directions: Sequence[str], part: float) -> list[Known]:
    """The best part of the trials by the first objective, the best first; at least one."""
    sign = 1.0 if directions[0] == "minimize" else -1.0
    ranked = sorted(known, key=lambda one: sign * one["values"][0])
    return ranked[: max(1, math.ceil(part * len(ranked)))] if ranked else []


def narrowed(space: Space, known: Sequence[Known]) -> Space:
    """The smallest space of the same parameters that holds the points near the best one.

    A box around several minima is almost all of the space. So of the points those are left out
    that a gap in some parameter, wider than a fifth of its range, parts from the best one; and as
    the minimum may lie just beside them, the box is made a tenth wider on each side.

    A parameter that has one value there, or is in none of them, stays as it is.

    Args:
        space: that they lie in.
        known: points, the best first.
    """
    kept = _around_best(space, known)
    found = {}
    for key, one in space.parameters.items():
        values = [point["params"][key] for point in kept if key in point["params"]]
        found[key] = _narrow(one, values)
    return Space(found)


def _around_best(space: Space, known: Sequence[Known]) -> list[Known]:
    """The points that no gap in any number parts from the first one."""
    kept = list(known)
    while True:
        before = len(kept)
        for key, one in space.parameters.items():
            if one.choices is None and key in kept[0]["params"]:
                kept = _joined(kept, key, one)
        if len(kept) == before:
            return kept


def _joined(known: list[Known], key: str, one: Parameter) -> list[Known]:
    """Those on the first one's side of all gaps in a parameter; those without it stay."""
    places = {n: _place(p["params"][key], one) for n, p in enumerate(known) if key in p["params"]}
    order = sorted(places, key=lambda n: places[n])
    first = last = order.index(0)
    while first > 0 and places[order[first]] - places[order[first - 1]] <= _GAP:
        first -= 1
    while last + 1 < len(order) and places[order[last + 1]] - places[order[last]] <= _GAP:
        last += 1
    out = {*order[:first], *order[last + 1 :]}
    return [point for n, point in enumerate(known) if n not in out]


def _place(value: float, one: Parameter) -> float:
    """Where a value lies in its range, in [0, 1]."""
    low, high = bounds(one)
    if one.log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def _value(place: float, one: Parameter) -> float:
    """The value at a place in [0, 1]."""
    low, high = bounds(one)
    place = min(max(place, 0.0), 1.0)
    return low * (high / low) ** place if one.log else low + (high - low) * place


def _narrow(one: Parameter, values: list[Any]) -> Parameter:
    if one.choices is not None:
        kept = [choice for choice in one.choices if choice in values]
        return one.model_copy(update={"choices": kept or one.choices})
    if len(set(values)) < 2 or one.step is not None:
        return one
    first, last = _place(min(values), one), _place(max(values), one)
    margin = _MARGIN * (last - first)
    low, high = _value(first - margin, one), _value(last + margin, one)
    if one.type == "int":
        low, high = math.floor(low + 1e-9), math.ceil(high - 1e-9)
    # rounding must not cut off what the margin was for
    return one.model_copy(
        update={"low": float(min(low, *values)), "high": float(max(high, *values))}
    )


def _from_journal(path: Path, study: Study) -> list[Known]:
    history = replay(journal.read(path))
    metrics = history.about.get("metrics", [])
    missing = [metric for metric in study.metrics if metric not in metrics]
    if missing:
        raise ConfigError(
            f"the study did not measure {', '.join(missing)} (objectives: {', '.join(metrics)})",
            where=str(path),
        )
    places = [metrics.index(metric) for metric in study.metrics]
    return [
        {"params": trial.params, "values": [trial.values[place] for place in places]}
        for trial in history.trials
        if trial.state == COMPLETE
    ]


def _from_csv(path: Path, study: Study) -> list[Known]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = []
    for number, row in enumerate(rows, 2):
        missing = [metric for metric in study.metrics if metric not in row]
        if missing:
            raise ConfigError(f"no column {missing[0]}", where=str(path))
        try:
            values = [float(row[metric]) for metric in study.metrics]
        except (TypeError, ValueError):
            raise ConfigError("a result must be a number", where=f"{path}:{number}") from None
        params = {key: _parsed(row[key]) for key in study.space if row.get(key)}
        if all(math.isfinite(value) for value in values):
            found.append({"params": params, "values": values})
    return found


def _parsed(text: str) -> Any:
    """A number, list or boolean as JSON writes it; else the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
