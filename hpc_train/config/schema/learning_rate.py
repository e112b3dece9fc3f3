"""[learning_rate]: how the learning rate changes in the course of a run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpc_train.config.schema.types import (
    BestMetric,
    NonNegative,
    NonNegativeInt,
    Period,
    Positive,
    PositiveInt,
    Section,
)

Part = Annotated[float, Field(ge=0, le=1)]


class LearningRate(Section):
    """The curve of the learning rate over global batches, a factor on optimizer.lr."""

    name: Literal[
        "constant",
        "step",
        "exponential",
        "inverse_time",
        "polynomial",
        "cosine",
        "cosine_restarts",
        "one_cycle",
        "plateau",
    ] = Field("constant", description="the curve; plateau: lowered as validation data say")
    warmup_steps: NonNegativeInt = Field(0, description="global batches of linear rise before it")
    final_factor: Part = Field(0.0, description="factor at the end, or the smallest one")
    gamma: Positive = Field(
        0.1, description="factor per step, time unit, plateau; inverse_time: rate"
    )
    every: Period = Field("1 epoch", description="a step, a time unit, the first of the restarts")
    power: Positive = Field(1.0, description="polynomial: power; 1 is a straight line")
    cycle_growth: PositiveInt = Field(1, description="cosine_restarts: length of a cycle by last")
    start_factor: Part = Field(0.04, description="one_cycle: factor at the beginning")
    peak: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="one_cycle: part of the run until the largest rate"
    )
    metric: BestMetric = Field("min loss", description="plateau: what shall get better")
    patience: NonNegativeInt = Field(10, description="plateau: evaluations without a gain")
    threshold: NonNegative = Field(1e-4, description="plateau: least gain, relative to the best")
    cooldown: NonNegativeInt = Field(0, description="plateau: evaluations not counted afterwards")
    scale: Literal["none", "linear", "sqrt"] = Field(
        "none", description="with the global batch: none, linear or sqrt"
    )
    base_batch_size: PositiveInt = Field(256, description="global batch that lr was made for")

    @model_validator(mode="after")
    def _keys_fit_together(self) -> LearningRate:
        if self.every == "never":
            raise ValueError(
                'learning_rate.every must be "N steps" or "N epochs" (learning_rate.every: "never")'
            )
        falls = self.name in ("step", "exponential", "plateau")
        if falls and self.gamma >= 1:
            raise ValueError(
                f"learning_rate.gamma must be below 1 for {self.name} "
                f"(learning_rate.gamma: {self.gamma:g})"
            )
        return self
