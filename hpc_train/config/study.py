"""The typed schema of a study: many trials of one configuration, `hpc-train tune STUDY.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from hpc_train.config.overrides import apply, parse_override
from hpc_train.config.schema.types import (
    BestMetric,
    Duration,
    NonNegativeInt,
    Positive,
    PositiveInt,
    RunName,
    Section,
    parse_seconds,
)
from hpc_train.errors import ConfigError, nearest

SamplerName = Literal["grid", "random", "quasi-random", "tpe", "gp", "cmaes", "nsga2"]
PrunerName = Literal["none", "median", "asha", "hyperband"]
Direction = Literal["minimize", "maximize"]


class Parameter(Section):
    """One key of the configuration that is searched."""

    type: Literal["float", "int", "categorical"] = Field(description="kind of its values")
    low: float | None = Field(None, description="smallest value")
    high: float | None = Field(None, description="largest value")
    log: bool = Field(False, description="search the logarithm")
    step: Positive | None = Field(None, description="distance of values; not with log")
    choices: list[Any] | None = Field(None, min_length=1, description="values of a categorical")
    points: PositiveInt | None = Field(None, description="values of a float or int in a grid")
    when: dict[str, Any] = Field(
        default_factory=dict, description="searched only where other keys have these values"
    )

    @model_validator(mode="after")
    def _whole(self) -> Parameter:
        if self.type == "categorical":
            if self.choices is None or self.low is not None or self.high is not None:
                raise ValueError("a categorical must have choices, and neither low nor high")
            return self
        if self.low is None or self.high is None or self.choices is not None:
            raise ValueError(f"{'an int' if self.type == 'int' else 'a float'} must have low, high")
        if not self.low < self.high:
            raise ValueError(f"low must be below high (low: {self.low:g}, high: {self.high:g})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log must have low > 0, and no step (low: {self.low:g})")
        whole = all(value is None or value == int(value) for value in (self.low, self.high))
        if self.type == "int" and not (whole and (self.step or 1) == int(self.step or 1)):
            raise ValueError("an int must have whole low, high and step")
        return self


class Search(Section):
    """What is searched, how long and where."""

    name: RunName = Field("study", description="begins the names of things")
    config: str = Field(description="recipe, or TOML file beside this one")
    overrides: list[str] = Field(
        default_factory=list, description='changes of all trials, such as ["run.epochs=5"]'
    )
    dir: str | None = Field(None, description="folder of the study; default: studies/<name>")
    trials: PositiveInt | None = Field(
        None, description="number of trials; a grid needs none, and has all its points"
    )
    seed: NonNegativeInt = Field(0, lt=2**31, description="seed of the search")
    wall_time: Duration | None = Field(
        None, description='end after that time, as in "2 hours"; default: that of the Slurm job'
    )


class Objective(Section):
    """What is sought; several for several objectives."""

    metric: BestMetric = Field(description='"max METRIC" or "min METRIC" of the validation data')
    value: Literal["last", "best"] = Field("last", description="which evaluation of a trial counts")


class Sampler(Section):
    """Who proposes the next trial."""

    name: SamplerName = Field("tpe", description="how the next trial is proposed")
    startup_trials: PositiveInt = Field(10, description="random ones before a model is made")
    population: PositiveInt = Field(20, description="trials of a generation of nsga2")


class Pruner(Section):
    """Who ends trials that promise little; resources are counted in evaluations."""

    name: PrunerName = Field("none", description="how trials are compared")
    startup_trials: NonNegativeInt = Field(5, description="trials before median prunes any")
    warmup: NonNegativeInt = Field(0, description="evaluations that median lets each trial have")
    least: PositiveInt = Field(1, description="evaluations that every trial gets at least")
    most: PositiveInt | None = Field(
        None, description="evaluations of a whole trial, for hyperband; default: as it turns out"
    )
    reduction: int = Field(4, ge=2, description="asha and hyperband keep one trial of so many")


class Groups(Section):
    """How many ranks train a trial."""

    ranks_per_trial: PositiveInt = Field(1, description="ranks that train one trial")
    samples_per_rank: PositiveInt | None = Field(
        None, description="in place of it: a trial gets data.batch_size / samples_per_rank ranks"
    )
    join: bool = Field(True, description="give idle ranks to running trials when none is waiting")


class Prior(Section):
    """What is known from earlier studies."""

    sources: list[str] = Field(
        default_factory=list, description="folders of studies, their journals, or CSV files"
    )
    use: Literal["results", "region"] = Field(
        "results", description="points with their results, or only the region of the good ones"
    )
    good: float = Field(0.25, gt=0, le=1, description="which part of the trials counts as good")
    repeat: NonNegativeInt = Field(1, description="how many of the best points are tried again")


class Population(Section):
    """Population-based training: trials go on from the checkpoints of better ones."""

    size: int = Field(0, ge=0, description="members; 0: off")
    every: PositiveInt = Field(1, description="evaluations between two comparisons")
    quantile: float = Field(0.25, gt=0, le=0.5, description="part that is replaced, and copied")
    factors: list[float] = Field(
        [0.8, 1.25], min_length=2, description="a copied number is multiplied by one of these"
    )
    resample: float = Field(0.25, ge=0, le=1, description="chance of a wholly new value instead")


class Study(Section):
    """A whole study."""

    study: Search
    objective: list[Objective] = Field(min_length=1)
    sampler: Sampler = Field(default_factory=Sampler)
    pruner: Pruner = Field(default_factory=Pruner)
    groups: Groups = Field(default_factory=Groups)
    history: Prior = Field(default_factory=Prior)
    population: Population = Field(default_factory=Population)
    space: dict[str, Parameter] = Field(min_length=1)

    @field_validator("space", mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        return _flatten(value) if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _fits(self) -> Study:
        if self.study.trials is None and self.sampler.name != "grid" and not self.population.size:
            raise ValueError(f'study.trials must be given (sampler: "{self.sampler.name}")')
        if len(self.objective) > 1 and (self.pruner.name != "none" or self.population.size):
            raise ValueError(
                f"several objectives go with no pruner and no population "
                f"(objectives: {len(self.objective)})"
            )
        if len(self.objective) > 1 and self.sampler.name in ("cmaes", "gp"):
            raise ValueError(f'sampler "{self.sampler.name}" takes one objective')
        if self.population.size == 1 or (self.population.size and self.pruner.name != "none"):
            raise ValueError("a population needs two members or more, and no pruner")
        return self

    @property
    def wall_seconds(self) -> float | None:
        """`study.wall_time` in seconds."""
        text = self.study.wall_time
        return None if text is None else parse_seconds(text)

    @property
    def directions(self) -> list[Direction]:
        """ "minimize" or "maximize" of each objective."""
        words: dict[str, Direction] = {"max": "maximize", "min": "minimize"}
        return [words[one.metric.split()[0]] for one in self.objective]

    @property
    def metrics(self) -> list[str]:
        """The metric of each objective."""
        return [one.metric.split()[1] for one in self.objective]


def _flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`optimizer.lr = {...}` and `"optimizer.lr" = {...}` are the same key."""
    found: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, dict) and "type" not in value and _below(value):
            found.update(_flatten(value, f"{prefix}{name}."))
        else:
            found[f"{prefix}{name}"] = value
    return found


def _below(value: Mapping[str, Any]) -> bool:
    return bool(value) and all(isinstance(inner, dict) for inner in value.values())


def load_study(source: Path, overrides: tuple[str, ...] = ()) -> Study:
    """The study that a TOML file and overrides of its keys describe.

    Raises:
        ConfigError: with all mistakes in `problems`.
    """
    file = str(source)
    try:
        table = tomllib.loads(source.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("no such file", where=file, hint="docs/tuning.md shows one") from None
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=file) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"a study must be TOML ({error})", where=file) from error
    mistakes = apply([parse_override(text) for text in overrides], table)
    try:
        study = Study.model_validate(table)
    except ValidationError as error:
        mistakes += [_problem(detail, file) for detail in error.errors(include_url=False)]
    if mistakes:
        raise ConfigError(f"{len(mistakes)} mistakes in the study", problems=mistakes)
    return study


def _problem(detail: Any, file: str) -> ConfigError:
    """A mistake that pydantic found, in our words."""
    key = ".".join(str(part) for part in detail["loc"]) or "study"
    if detail["type"] == "missing":
        return ConfigError(f"{key} is missing", where=file)
    if detail["type"] == "extra_forbidden":
        like = nearest(key, _known_keys())
        hint = f"did you mean {like}?" if like else "docs/tuning.md lists all keys"
        return ConfigError(f"unknown key {key}", where=file, hint=hint)
    text = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    text = text[:1].lower() + text[1:]
    shown = detail["input"]
    value = f" ({key}: {shown!r})" if isinstance(shown, str | int | float | bool) else ""
    return ConfigError(f"{key}: {text}{value}", where=file)


def _known_keys() -> list[str]:
    """All keys of a study, but those of the space."""
    sections = {name: field.annotation for name, field in Study.model_fields.items()}
    sections["objective"] = Objective
    return [
        f"{name}.{key}" if name != "objective" else f"{name}.0.{key}"
        for name, kind in sections.items()
        if isinstance(kind, type) and issubclass(kind, Section)
        for key in kind.model_fields
    ] + list(sections)
