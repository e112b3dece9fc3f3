"""[compress]: what makes a network smaller while it is trained."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from hpc_train.config.schema.types import Fraction, Period, PositiveInt, Section

_PATTERN = r"^([1-9][0-9]*):([1-9][0-9]*)$"


def _pattern(value: Any) -> Any:
    """Check that it says how many of how many stay."""
    found = re.fullmatch(_PATTERN, value) if isinstance(value, str) else None
    if found is None or int(found[1]) >= int(found[2]):
        raise ValueError('must be "N:M" with N < M, such as "2:4"')
    return value


class Compress(Section):
    """Pruning and quantisation; `hpc-train compress RUN` makes a smaller file of the result."""

    prune: Literal["none", "magnitude", "saliency", "sensitivity", "pattern", "channels"] = Field(
        "none", description="smallest, least effect, by layer as measured, N of M, channels"
    )
    amount: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.8, description="part of weights that goes; for channels: of operations"
    )
    pattern: Annotated[str, BeforeValidator(_pattern)] = Field(
        "2:4", description="for pattern: N of M neighbours stay"
    )
    channel_multiple: PositiveInt = Field(
        8, description="channels that go at a time, at most a quarter of a layer's"
    )
    begin: Fraction = Field(0.1, description="part of the run after which pruning begins")
    end: Fraction = Field(0.7, description="part of the run after which it ends")
    every: Period = Field("50 steps", description="how often more is pruned, by a cubic curve")
    scan_samples: PositiveInt = Field(
        2048, description="for sensitivity: of the validation data, to measure layers with"
    )
    floor_metric: str = Field("accuracy", description="metric of the validation data for floor")
    floor: float | None = Field(
        None, examples=[0.95], description="pruning stops when the metric is below it"
    )
    rewind: Fraction | None = Field(
        None,
        examples=[0.05],
        description="part of the run to whose weights it goes back (lottery ticket)",
    )
    quantize: Literal["none", "int8"] = Field(
        "none", description="int8: training that knows of rounding"
    )
    quantize_begin: Fraction = Field(
        0.5, description="part of the run after which it computes with rounded numbers"
    )

    @property
    def floor_told(self) -> str | None:
        """The metric that has a floor, as one that is best when largest; None without one."""
        return None if self.floor is None else f"max {self.floor_metric}"

    @property
    def keep_of(self) -> tuple[int, int]:
        """The pattern as numbers."""
        keep, _, of = self.pattern.partition(":")
        return int(keep), int(of)

    @model_validator(mode="after")
    def _in_order(self) -> Compress:
        if self.begin > self.end:
            raise ValueError(
                "compress.begin must not be after compress.end "
                f"(compress.begin: {self.begin}, compress.end: {self.end})"
            )
        if self.rewind is not None and self.rewind > self.begin:
            raise ValueError(
                "compress.rewind must not be after compress.begin "
                f"(compress.rewind: {self.rewind}, compress.begin: {self.begin})"
            )
        if self.every == "never":
            raise ValueError('compress.every must not be "never"')
        return self
