"""[optimizer]: how gradients become new weights."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hpc_train.config.schema.types import Fraction, NonNegative, Positive, Section


class PhaseOptimizer(Section):
    """How the gradients of one phase of the task become new weights."""

    name: Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "lamb", "lars"] = Field(
        "adamw", description="sgd, adam, adamw, rmsprop, adagrad, lamb, lars"
    )
    lr: NonNegative = Field(1e-3, description="learning rate before its curve is applied")
    momentum: Fraction = Field(0.0, description="sgd, rmsprop, lars: momentum")
    nesterov: bool = Field(False, description="sgd: Nesterov's momentum")
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999),
        strict=False,  # TOML has lists, no tuples
        description="adam, adamw, lamb: decay of the two moments",
    )
    alpha: Fraction = Field(0.99, description="rmsprop: decay of the mean square")
    centered: bool = Field(False, description="rmsprop: subtract the square of the mean")
    trust_coefficient: Positive = Field(1e-3, description="lars: rate by norm of the weights")
    eps: Positive = Field(1e-8, description="all but sgd, lars: added to the denominator")
    weight_decay: NonNegative = Field(0.0, description="decoupled for adamw, lamb; else L2")
    decay_norms_and_biases: bool = Field(
        True, description="false: they have no decay, nor rates of their own in lamb, lars"
    )
    rates: dict[str, NonNegative] = Field(
        {},
        examples=[{"head.*": 10.0}],
        description="factors on lr by pattern of parameter names",
    )
    depth_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="factor on lr from each block to the one before it"
    )
    clip_norm: Positive | None = Field(
        None, examples=[1.0], description="largest global norm of the gradient; default: no limit"
    )


class Optimizer(PhaseOptimizer):
    """How gradients become new weights."""

    non_finite: Literal["stop", "skip"] = Field(
        "stop", description="what happens when the loss or the gradient is not finite"
    )
    phases: dict[str, PhaseOptimizer] = Field(
        {},
        examples=[{"generator": {"lr": 1e-4}}],
        description="keys that differ in a phase of the task",
    )

    def of(self, phase: str) -> PhaseOptimizer:
        """The settings of one phase: its own keys, over those of the section."""
        given = self.phases.get(phase)
        if given is None:
            return self
        own = {name: getattr(given, name) for name in given.model_fields_set}
        everything = {name: getattr(self, name) for name in PhaseOptimizer.model_fields}
        return PhaseOptimizer.model_construct(**{**everything, **own})

    @model_validator(mode="after")
    def _keys_fit_together(self) -> Optimizer:
        _check(self, "optimizer")
        for phase in self.phases:
            _check(self.of(phase), f"optimizer.phases.{phase}")
        return self


def _check(section: PhaseOptimizer, name: str) -> None:
    """Check what no single key can tell."""
    if section.nesterov and section.momentum == 0:
        raise ValueError(f"{name}.nesterov needs a momentum above 0 ({name}.momentum: 0.0)")
