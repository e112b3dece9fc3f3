"""The typed schema of a run: every section, key, default and range.

The description of a field is what `hpc-train config init` writes as its comment and what
`hpc-train config schema` hands to editors.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from hpc_train.plan import Every

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
_PERIOD = r"^(never|[1-9][0-9]* (steps?|epochs?))$"
_SAVE_PERIOD = r"^(never|auto|[1-9][0-9]* (steps?|epochs?|seconds?|minutes?|hours?|days?))$"
_DURATION = r"^[1-9][0-9]* (seconds?|minutes?|hours?|days?)$"
_BEST = r"^(max|min) [^ ]+$"
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


def _run_name(value: Any) -> Any:
    """Check that a name can be part of a folder's."""
    if isinstance(value, str) and not re.fullmatch(_NAME, value):
        raise ValueError(
            "must begin with a letter or a digit, followed by letters, digits and any of . _ -"
        )
    return value


def _names(value: Any) -> Any:
    """One name stands for a list of one."""
    return [value] if isinstance(value, str) else value


def _period(value: Any) -> Any:
    """Check that a period can be parsed."""
    try:
        Every.parse(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError('must be "N steps", "N epochs" (N >= 1) or "never"') from None
    return value


def parse_seconds(text: str) -> float | None:
    """The seconds that "10 minutes" or "1 day" names; None if it names no duration."""
    if not re.fullmatch(_DURATION, text):
        return None
    count, unit = text.split()
    return float(int(count) * _SECONDS[unit.rstrip("s")])


def _save_period(value: Any) -> Any:
    """Check that a period can be parsed, that may also be a time."""
    if not isinstance(value, str) or not re.fullmatch(_SAVE_PERIOD, value):
        raise ValueError(
            'must be "N steps", "N epochs", "N minutes", "N hours" (N >= 1), "auto" or "never"'
        )
    return value


def _duration(value: Any) -> Any:
    """Check that a duration can be parsed."""
    if not isinstance(value, str) or parse_seconds(value) is None:
        raise ValueError('must be "N minutes", "N hours" or "N days" (N >= 1)')
    return value


def _best(value: Any) -> Any:
    """Check that it says which metric, and whether more of it is better."""
    if value is not None and not (isinstance(value, str) and re.fullmatch(_BEST, value)):
        raise ValueError('must be "max METRIC" or "min METRIC", such as "min loss"')
    return value


def parse_bytes(value: Any) -> Any:
    """The bytes that "256 MiB" names; anything but such a text is returned as it is.

    Raises:
        ValueError: if a text is not a size.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)", value.strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    if match is None or unit is None:
        raise ValueError('must be a number of bytes, or a size such as "256 MiB"')
    return int(float(match[1]) * unit)


# The JSON schema of what users write, where it differs from what the program gets: editors read
# it, and complaints are made of it.
RunName = Annotated[
    str, BeforeValidator(_run_name), WithJsonSchema({"type": "string", "pattern": _NAME})
]
Names = Annotated[
    list[str],
    Field(min_length=1),
    BeforeValidator(_names),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
Period = Annotated[
    str, BeforeValidator(_period), WithJsonSchema({"type": "string", "pattern": _PERIOD})
]
SavePeriod = Annotated[
    str, BeforeValidator(_save_period), WithJsonSchema({"type": "string", "pattern": _SAVE_PERIOD})
]
Duration = Annotated[
    str, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": _DURATION})
]
BestMetric = Annotated[
    str, BeforeValidator(_best), WithJsonSchema({"type": "string", "pattern": _BEST})
]
Bytes = Annotated[
    int,
    BeforeValidator(parse_bytes),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string"}]}),
]


class Section(BaseModel):
    """A table of the configuration; keys that it does not know are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Open(BaseModel):
    """A table whose further keys are arguments, checked against the signature they go to."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """The keys beside those that the schema names."""
        return dict(self.__pydantic_extra__ or {})


class Run(Section):
    """What the run is called, where it lies and how long it goes on."""

    name: RunName = Field("run", description="begins the name of the run directory")
    dir: str | None = Field(
        None, examples=["runs/first"], description="run directory; default: runs/<name>-<time>-<id>"
    )
    seed: NonNegativeInt = Field(0, lt=2**63, description="seed of order, weights and dropout")
    epochs: PositiveInt | None = Field(
        None, examples=[10], description="length in epochs; default: 1, unless steps is set"
    )
    steps: PositiveInt | None = Field(
        None, examples=[1000], description="length in global batches, in place of epochs"
    )
    evaluate: Period = Field("1 epoch", description='"N steps", "N epochs" or "never"')

    @model_validator(mode="after")
    def _one_length(self) -> Run:
        if self.epochs is not None and self.steps is not None:
            raise ValueError(
                f"only one of run.epochs and run.steps may be set (run.epochs: {self.epochs}, "
                f"run.steps: {self.steps})"
            )
        if self.epochs is None and self.steps is None:
            self.epochs = 1
        return self


class Data(Section):
    """Where samples come from and in which order and portions they are used."""

    train: str = Field(description="folder, HDF5 file or builtin:NAME; NAME[a:b]: samples a .. b-1")
    validation: str | None = Field(
        None, examples=["validation.h5"], description="evaluated every run.evaluate"
    )
    test: str | None = Field(
        None, examples=["builtin:digits/test"], description="evaluated once, at the end"
    )
    inputs: Names = Field(description="dataset (or several) that the model gets")
    targets: Names | None = Field(
        None, examples=["label"], description="dataset (or several) that it shall predict"
    )
    batch_size: PositiveInt = Field(64, description="samples of a global batch, over all ranks")
    micro_batch_size: PositiveInt | None = Field(
        None,
        examples=[32],
        description="most samples on the device at once; more are accumulated",
    )
    shuffle: Literal["full", "window", "none"] = Field(
        "window",
        description="window: mix windows of blocks; full: mix all samples; none",
    )
    shuffle_window: PositiveInt | Literal["auto"] = Field(
        "auto", description="blocks that are mixed with each other"
    )
    block_rows: PositiveInt = Field(
        1024, description="rows read together where the file is not chunked"
    )
    scale: Positive | Literal["auto", "none"] = Field(
        "auto", description="factor on the inputs; auto: 1/255 for uint8, otherwise none"
    )
    prefetch_batches: PositiveInt = Field(4, description="batches that are read ahead")
    cache_bytes: Bytes = Field(
        256 * 2**20,
        examples=["256 MiB"],
        description="blocks that a rank keeps in memory",
    )


class Model(Open):
    """Which network; further keys are arguments of its builder, such as hidden = 128."""

    name: str = Field(description="a built-in network, or my_package.module:function")


class Task(Open):
    """What is learned; further keys are arguments of the task."""

    name: str = Field("classification", description="a built-in task, or my_package.module:Class")


class Optimizer(Section):
    """How gradients become new weights."""

    name: Literal["sgd", "adam", "adamw"] = Field("adamw", description="sgd, adam or adamw")
    lr: NonNegative = Field(1e-3, description="learning rate before its curve is applied")
    momentum: Fraction = Field(0.0, description="sgd: momentum")
    nesterov: bool = Field(False, description="sgd: Nesterov's momentum")
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999),
        strict=False,  # TOML has lists, no tuples
        description="adam, adamw: decay of the two moments",
    )
    eps: Positive = Field(1e-8, description="adam, adamw: added to the denominator")
    weight_decay: NonNegative = Field(0.0, description="L2 (sgd, adam) or decoupled (adamw)")
    clip_norm: Positive | None = Field(
        None, examples=[1.0], description="largest global norm of the gradient; default: no limit"
    )
    non_finite: Literal["stop", "skip"] = Field(
        "stop", description="what happens when the loss or the gradient is not finite"
    )

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Optimizer:
        if self.nesterov and self.momentum == 0:
            raise ValueError(
                "optimizer.nesterov needs a momentum above 0 (optimizer.momentum: 0.0)"
            )
        return self


class LearningRate(Section):
    """The curve of the learning rate over global batches, a factor on optimizer.lr."""

    name: Literal["constant", "cosine"] = Field("constant", description="constant or cosine")
    warmup_steps: NonNegativeInt = Field(0, description="global batches of linear rise before it")
    final_factor: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="cosine: factor at the end of the run"
    )


class Strategy(Section):
    """How ranks agree on weights."""

    name: Literal["allreduce"] = Field("allreduce", description="allreduce")


class Schedule(Section):
    """How a global batch is split among the ranks."""

    policy: Literal["static", "round_robin", "proportional", "min_finish_time"] = Field(
        "static",
        description="static, round_robin; by speed: proportional, min_finish_time",
    )
    shares: list[NonNegative] | None = Field(
        None,
        examples=[[2.0, 1.0]],
        description="static: relative share of each rank; default: equal",
    )

    @model_validator(mode="after")
    def _shares_are_static(self) -> Schedule:
        if self.shares is not None and self.policy != "static":
            raise ValueError(
                "schedule.shares are for the static policy alone (schedule.policy: "
                f"{self.policy}, schedule.shares: {self.shares})"
            )
        return self


class Comm(Section):
    """How ranks talk to each other."""

    collective: Literal["auto", "native", "ring", "shared", "hierarchical"] = Field(
        "auto", description="auto: the fastest here; native: MPI's; ring; shared; hierarchical"
    )


class Precision(Section):
    """In which numbers the model computes."""

    dtype: Literal["float32", "float64"] = Field("float32", description="float32 or float64")


class Device(Section):
    """Where each rank computes."""

    name: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the rank's GPU if there is one, else the CPU"
    )
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="torch threads per rank; auto: its part of the cores"
    )


class Checkpoint(Section):
    """When the state is saved; it is always saved at the end."""

    every: SavePeriod = Field(
        "1 epoch", description='"N steps", "N epochs", "N minutes", "auto" or "never"'
    )
    keep_last: PositiveInt = Field(2, description="how many sets are kept")
    keep_best: BestMetric | None = Field(
        None,
        examples=["max accuracy"],
        description="also keep the best on the validation data: max or min, metric",
    )
    asynchronous: bool = Field(
        True,
        description="written behind the training; false if losses change weights",
    )
    mean_time_between_failures: Duration = Field(
        "1 day", description='for every = "auto", such as "8 hours"'
    )


class Config(Section):
    """A whole run."""

    run: Run = Field(default_factory=Run)
    data: Data
    model: Model
    task: Task = Field(default_factory=Task)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    learning_rate: LearningRate = Field(default_factory=LearningRate)
    strategy: Strategy = Field(default_factory=Strategy)
    schedule: Schedule = Field(default_factory=Schedule)
    comm: Comm = Field(default_factory=Comm)
    precision: Precision = Field(default_factory=Precision)
    device: Device = Field(default_factory=Device)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
