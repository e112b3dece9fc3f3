"""[recovery]: what happens when ranks are lost or hang."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpc_train.config.schema.types import Duration, NonNegativeInt, Positive, PositiveInt, Section


class Recovery(Section):
    """What happens when ranks are lost or hang."""

    shrink: bool = Field(
        True, description="go on without ranks that die, if the MPI can (Open MPI 5)"
    )
    respawn: bool = Field(
        False, description="start others in place of ranks that die, if the MPI can"
    )
    watch: bool = Field(
        True, description="record what ranks do; watch for those that hang or are stopped"
    )
    on_hang: Literal["kill", "wait", "abort"] = Field(
        "kill", description="kill: that rank; wait: only report; abort: all ranks of its node"
    )
    hang_seconds: Positive = Field(
        60.0, description="a phase may last so long, and 20 times its longest so far"
    )
    max_restarts: NonNegativeInt = Field(
        3, description="run -n starts again so often in a period when ranks died"
    )
    restart_period: Duration = Field("1 hour", description='such as "30 minutes"')
    min_ranks: PositiveInt = Field(
        1, description="with fewer ranks left, save and leave with exit code 75"
    )
