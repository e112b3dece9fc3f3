"""Scheduling: how a global batch is split among the ranks. Pure: no MPI, clock, torch or files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpc_train.errors import UsageError, unknown
from hpc_train.plan import Plan
from hpc_train.schedule.static import static

__all__ = ["POLICIES", "first_plan"]

# name -> the plan that a run begins with, from batch size, number of ranks and stated shares
POLICIES: dict[str, Callable[[int, int, Sequence[float] | None], Plan]] = {"static": static}


def first_plan(
    policy: str, batch_size: int, num_ranks: int, shares: Sequence[float] | None = None
) -> Plan:
    """The plan that a run begins with.

    Args:
        policy: a name in `POLICIES`.
        batch_size: samples of a global batch, >= 1.
        num_ranks: ranks that train, >= 1.
        shares: relative share of each rank, >= 0, shape (num_ranks,); None for equal shares.
    """
    if policy not in POLICIES:
        raise UsageError(unknown("policy", policy, POLICIES))
    return POLICIES[policy](batch_size, num_ranks, shares)
