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
from hpc_train.tune.space import Space

Known = dict[str, Any]


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
    """The smallest space of the same parameters that holds all points of `known`.

    A parameter that has one value there, or is in none of them, stays as it is.
    """
    found = {}
    for key, one in space.parameters.items():
        values = [point["params"][key] for point in known if key in point["params"]]
        found[key] = _narrow(one, values)
    return Space(found)


def _narrow(one: Parameter, values: list[Any]) -> Parameter:
    if one.choices is not None:
        kept = [choice for choice in one.choices if choice in values]
        return one.model_copy(update={"choices": kept or one.choices})
    if len(set(values)) < 2 or one.step is not None:
        return one
    return one.model_copy(update={"low": float(min(values)), "high": float(max(values))})


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
