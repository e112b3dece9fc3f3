"""What the values of sections are made of: ranges, periods, sizes, names."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
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
