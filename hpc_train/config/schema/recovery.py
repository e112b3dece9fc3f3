"""[recovery]: what happens when ranks are lost or hang."""

from __future__ import annotations

from pydantic import Field

from hpc_train.config.schema.types import PositiveInt, Section


class Recovery(Section):
    """What happens when ranks are lost."""

    shrink: bool = Field(
        True, description="go on without ranks that die, if the MPI can (Open MPI 5)"
    )
    min_ranks: PositiveInt = Field(
        1, description="with fewer ranks left, save and leave with exit code 75"
    )
