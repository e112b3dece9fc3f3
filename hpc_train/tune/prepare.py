"""A study before it starts: read, and checked against the configuration of its trials."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_train import recipes
from hpc_train.config import Config, load, to_toml
from hpc_train.config.study import Study, load_study
from hpc_train.config.text import to_key, to_value
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.train.build import preflight
from hpc_train.train.learning import make_task
from hpc_train.train.network import bind_model
from hpc_train.train.survey import Survey
from hpc_train.train.wanted import check_metric
from hpc_train.tune import population, warm
from hpc_train.tune.history import History
from hpc_train.tune.samplers import require_optuna
from hpc_train.tune.space import Point, Space

ROOT = Path("studies")
# whatever the user says of these: tests come after the search, and each trial has its folder
_ALWAYS = ("data.test=", "run.dir=")
_MOST_RANKS = 2**20


@dataclass(frozen=True)
class Prepared:
    """A study that has been checked.

    Attributes:
        study: what was asked for.
        space: what is searched.
        base: the configuration file of the trials.
        folder: of the study.
        total: number of trials.
        known: trials of earlier studies: params and values.
        num_samples: training samples.
    """

    study: Study
    space: Space
    base: Path
    folder: Path
    total: int
    known: list[dict[str, Any]]
    num_samples: int

    def config(self, point: Point, more: Sequence[str] = ()) -> Config:
        """The configuration of a trial."""
        return trial_config(self.study, self.base, point, more)

    def length(self, config: Config) -> int:
        """The global batches of a trial."""
        per_epoch = math.ceil(self.num_samples / config.data.batch_size)
        return config.run.steps or per_epoch * (config.run.epochs or 1)

    def size(self, point: Point) -> tuple[float, int]:
        """The samples that a trial trains with, and its ranks."""
        config = self.config(point)
        groups = self.study.groups
        count = groups.ranks_per_trial
        if groups.samples_per_rank is not None:
            count = math.ceil(config.data.batch_size / groups.samples_per_rank)
        return float(self.length(config) * config.data.batch_size), min(count, _MOST_RANKS)

    def digest(self) -> str:
        """What may not change when a study goes on."""
        told = self.study.model_dump(exclude={"groups": True, "study": {"dir", "wall_time"}})
        told["study"].pop("trials")
        told["base"] = to_toml(load(self.base, self.study.study.overrides).config)
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def overrides(point: Point) -> list[str]:
    """A point as overrides of a configuration."""
    return [f"{_key(key)}={to_value(value)}" for key, value in point.items()]


def trial_config(study: Study, base: Path, point: Point, more: Sequence[str] = ()) -> Config:
    """The configuration of a trial."""
    return load(base, [*study.study.overrides, *overrides(point), *_ALWAYS, *more]).config


def prepare(source: Path, changes: Sequence[str] = (), num_ranks: int = 1) -> Prepared:
    """Read a study and check all that can be checked without ranks.

    Args:
        source: the study's TOML file.
        changes: overrides of its keys.
        num_ranks: of the job.

    Raises:
        HpcTrainError: for whatever would stop it, or each of its trials, at the beginning.
    """
    require_optuna()
    study = load_study(source, tuple(changes))
    space = Space.ordered(study.space)
    base = _base(study.study.config, source)
    plan = _check_trials(study, space, base)
    if study.groups.ranks_per_trial > num_ranks:
        raise ConfigError(
            f"groups.ranks_per_trial must be up to the number of ranks "
            f"(ranks_per_trial: {study.groups.ranks_per_trial}, ranks: {num_ranks})",
            where=str(source),
        )
    if study.population.size:
        population.check(space)
    return Prepared(
        study,
        space,
        base,
        Path(study.study.dir or ROOT / study.study.name).expanduser(),
        _total(study, space),
        warm.load(study, space),
        plan.course.num_samples,
    )


def check_same(prepared: Prepared, history: History) -> str:
    """Check that a folder holds this study, or none; gives its digest.

    Raises:
        ConfigError: if it holds another one.
    """
    digest = prepared.digest()
    if history.digest not in (None, digest):
        raise ConfigError(
            "the folder holds a study with other settings",
            where=str(prepared.folder),
            hint="choose another study.dir, or take the settings back; only study.trials, "
            "study.wall_time and [groups] may change",
        )
    return digest


def _total(study: Study, space: Space) -> int:
    if study.population.size:
        return study.population.size
    if study.sampler.name == "grid":
        points = len(space.grid())
        return min(points, study.study.trials or points)
    assert study.study.trials is not None  # the schema has checked it
    return study.study.trials


def _base(name: str, source: Path) -> Path:
    beside = source.parent / name
    return beside if beside.is_file() else recipes.find(name)


def _check_trials(study: Study, space: Space, base: Path) -> Survey:
    """Check that the extreme values of all parameters make configurations, and tasks and models."""
    plan: Survey | None = None
    mistakes: dict[str, ConfigError] = {}
    for point in space.corners():
        try:
            config = trial_config(study, base, point)
            if plan is None:
                plan = preflight(config, 1)
            _check_metrics(study, config)
            bind_model(config, plan)
        except ConfigError as error:
            for line in error.problems or (error,):
                told = _told(line, space, overridden=bool(study.study.overrides))
                mistakes.setdefault(str(line), told)
    if mistakes or plan is None:
        raise ConfigError(
            f"{len(mistakes)} mistakes in the trials of the study", problems=[*mistakes.values()]
        )
    return plan


def _check_metrics(study: Study, config: Config) -> None:
    if config.data.validation is None:
        raise ConfigError(
            "a study must have validation data (data.validation)",
            where="study.overrides",
            hint='such as overrides = ["data.validation=PATH"], of samples not in data.train',
        )
    task = make_task(config)
    for objective in study.objective:
        check_metric(config, objective.metric, "objective.metric", task.metrics)
    if config.run.evaluate == "never":
        raise ConfigError('a trial must be evaluated (run.evaluate: "never")', where="run.evaluate")


def _told(error: HpcTrainError, space: Space, *, overridden: bool) -> ConfigError:
    """A mistake of a trial, as one of the study."""
    place, hint = error.where, error.hint
    if place in (None, "override"):
        sections = [f"[{key.partition('.')[0]}]" for key in space.parameters]
        found = any(name in error.message for name in (*space.parameters, *sections))
        place = "space" if found or not overridden else "space or study.overrides"
    for key, one in space.parameters.items():
        if one.type == "float" and error.message.startswith(f"{key} must be an integer"):
            hint = f'give {key} the type "int"'
    return ConfigError(error.message, where=place, hint=hint)


def _key(key: str) -> str:
    return ".".join(to_key(part) for part in key.split("."))
