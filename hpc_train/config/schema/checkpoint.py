"""[checkpoint]: when the state is saved."""

from __future__ import annotations

from pydantic import Field

from hpc_train.config.schema.types import BestMetric, Duration, PositiveInt, SavePeriod, Section


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
