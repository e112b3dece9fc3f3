"""[precision]: in which numbers the model computes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpc_train.config.schema.types import Positive, PositiveInt, Section


class Precision(Section):
    """In which numbers the model computes."""

    dtype: Literal["float32", "float64"] = Field(
        "float32", description="of weights, gradients and sums: float32 or float64"
    )
    autocast: Literal["none", "bfloat16", "float16"] = Field(
        "none", description="numbers of the network where it is safe; not of weights"
    )
    loss_scale: Positive = Field(65536.0, description="float16: factor on the loss to begin with")
    loss_scale_growth: Annotated[float, Field(gt=1)] = Field(
        2.0, description="float16: factor on it after growth_interval good steps"
    )
    loss_scale_backoff: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.5, description="float16: factor on it after an overflow"
    )
    growth_interval: PositiveInt = Field(2000, description="float16: good steps before it grows")
    tf32: bool | None = Field(
        None, examples=[True], description="TF32 on GPUs; default: torch's own choice"
    )

    @model_validator(mode="after")
    def _autocast_is_from_float32(self) -> Precision:
        if self.autocast != "none" and self.dtype != "float32":
            raise ValueError(
                f"precision.autocast needs weights in float32 (precision.dtype: {self.dtype}, "
                f"precision.autocast: {self.autocast})"
            )
        return self
