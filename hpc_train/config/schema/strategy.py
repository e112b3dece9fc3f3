"""[strategy]: how ranks agree on weights."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpc_train.config.schema.types import Duration, NonNegative, NonNegativeInt, Section


class Strategy(Section):
    """How ranks agree on weights."""

    name: Literal["allreduce", "parameter_server"] = Field(
        "allreduce", description="allreduce, parameter_server (rank 0 updates)"
    )
    staleness: NonNegativeInt | Literal["unbounded"] = Field(
        0,
        description="server: updates that gradients may lack: 0, N, unbounded",
    )
    server_trains: bool = Field(True, description="server: rank 0 computes, too")
    damping: NonNegative = Field(
        0.0, description="server: updates that lack n others are divided by 1 + damping n"
    )
    timeout: Duration = Field(
        "10 minutes", description="server: how long a part of a batch may take"
    )
