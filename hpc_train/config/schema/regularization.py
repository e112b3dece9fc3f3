"""[regularization], [early_stopping]: what keeps a network from learning its samples by heart."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from hpc_train.config.schema.types import (
    BestMetric,
    Fraction,
    NonNegative,
    Period,
    Positive,
    PositiveInt,
    Section,
)


class Regularization(Section):
    """What keeps a network from learning its samples by heart; all of it is off by default."""

    l1: NonNegative = Field(0.0, description="adds l1 * sum |w| of weight matrices to the loss")
    l2: NonNegative = Field(0.0, description="adds l2 / 2 * sum w^2; with l1: elastic net")
    dropout: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None,
        examples=[0.2],
        description="probability of all dropout layers, masks keyed by sample",
    )
    max_norm: Positive | None = Field(
        None, examples=[3.0], description="largest norm of the weights into one unit"
    )
    label_smoothing: Fraction = Field(
        0.0, description="part of each label that is spread over all classes in training"
    )
    mixup: Positive | None = Field(
        None, examples=[0.2], description="alpha: samples are mixed with a partner of their batch"
    )
    cutmix: Positive | None = Field(
        None, examples=[1.0], description="alpha: a box of each image is its partner's"
    )
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, examples=[0.999], description="evaluate and keep an average with this decay"
    )
    swa_start: Fraction | None = Field(
        None, examples=[0.75], description="part of the run after which weights are averaged"
    )
    swa_every: Period = Field("1 epoch", description="how often they are added to that average")

    @model_validator(mode="after")
    def _one_average(self) -> Regularization:
        if self.ema_decay is not None and self.swa_start is not None:
            raise ValueError(
                "only one of regularization.ema_decay and regularization.swa_start may be set "
                f"(regularization.ema_decay: {self.ema_decay}, "
                f"regularization.swa_start: {self.swa_start})"
            )
        if self.swa_every == "never":
            raise ValueError('regularization.swa_every must not be "never"')
        return self


class EarlyStopping(Section):
    """When a run ends before its time; every evaluation of the validation data counts."""

    metric: BestMetric | None = Field(
        None, examples=["min loss"], description="max or min, metric of the validation data"
    )
    patience: PositiveInt = Field(5, description="evaluations without a better one until the end")
    min_delta: NonNegative = Field(0.0, description="by how much a better one must be better")
    restore_best: bool = Field(True, description="end with the weights of the best evaluation")


class Ensemble(Section):
    """Several networks whose predictions are averaged."""

    members: PositiveInt = Field(
        1, description="trained with seeds of their own; ranks are divided among them"
    )
