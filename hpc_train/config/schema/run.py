"""[run]: what a run is called, where it lies and how long it goes on."""

from __future__ import annotations

from pydantic import Field, model_validator

from hpc_train.config.schema.types import (
    Duration,
    NonNegativeInt,
    Period,
    PositiveInt,
    RunName,
    Section,
)


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

    wall_time: Duration | None = Field(
        None,
        examples=["4 hours"],
        description="then save and leave with 75; Slurm's limit is known by itself",
    )

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
