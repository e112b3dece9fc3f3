"""[strategy]: how ranks agree on weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpc_train.config.schema.types import (
    Duration,
    Fraction,
    NonNegative,
    NonNegativeInt,
    PositiveInt,
    Section,
)


class Strategy(Section):
    """How ranks agree on weights."""

    name: Literal["allreduce", "parameter_server", "local_sgd"] = Field(
        "allreduce",
        description="allreduce, parameter_server (rank 0 updates), local_sgd (rounds)",
    )
    shard_optimizer: Literal["auto"] | bool = Field(
        "auto",
        description="allreduce: each rank of a node updates a slice: auto, true, false",
    )
    staleness: NonNegativeInt | Literal["unbounded"] = Field(
        0,
        description="server: updates that gradients may lack: 0, N, unbounded",
    )
    servers: PositiveInt = Field(
        1, description="server: ranks 0 .. N - 1 hold a slice of the weights each"
    )
    server_trains: bool = Field(True, description="server: servers compute, too")
    damping: NonNegative = Field(
        0.0, description="server: updates that lack n others are divided by 1 + damping n"
    )
    timeout: Duration = Field(
        "10 minutes", description="server: how long a part of a batch may take"
    )
    period: PositiveInt = Field(8, description="local_sgd: batches between means of weights")
    synchronous_steps: NonNegativeInt = Field(
        0, description="local_sgd: batches trained as by allreduce before"
    )
    outer_momentum: Fraction = Field(0.0, description="local_sgd: momentum of the means")
    within_node: Literal["local", "synchronous"] = Field(
        "local", description="local_sgd: ranks of a node update alone, or together"
    )
