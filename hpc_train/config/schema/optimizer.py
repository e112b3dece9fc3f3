"""[optimizer], [learning_rate]: how gradients become new weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpc_train.config.schema.types import Fraction, NonNegative, NonNegativeInt, Positive, Section


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
