"""Scheduling: how a global batch is split among the ranks. Pure: no MPI, clock, torch or files."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_train.errors import UsageError, unknown
from hpc_train.plan import Plan
from hpc_train.schedule import dynamic, min_finish_time, proportional, round_robin, static
from hpc_train.schedule.dispatch import Dispatcher
from hpc_train.schedule.ledger import Ledger
from hpc_train.schedule.listing import first_free, list_schedule, longest_first, next_rank
from hpc_train.schedule.replay import Step, replay
from hpc_train.schedule.reserve import Claimed, Cut, Reserve
from hpc_train.schedule.scheduler import Balance, Scheduler
from hpc_train.schedule.situation import Policy, Situation
from hpc_train.schedule.speed import Speeds
from hpc_train.schedule.split import finish_seconds, split

__all__ = [
    "POLICIES",
    "Balance",
    "Claimed",
    "Cut",
    "Dispatcher",
    "Ledger",
    "Policy",
    "Reserve",
    "Scheduler",
    "Situation",
    "Speeds",
    "Step",
    "find_policy",
    "finish_seconds",
    "first_free",
    "first_plan",
    "list_schedule",
    "longest_first",
    "next_rank",
    "replay",
    "split",
]

POLICIES: dict[str, Policy] = {
    "static": static.POLICY,
    "round_robin": round_robin.POLICY,
    "proportional": proportional.POLICY,
    "min_finish_time": min_finish_time.POLICY,
    "dynamic": dynamic.POLICY,
}


def find_policy(name: str) -> Policy:
    """The policy called `name`.

    Raises:
        UsageError: if there is none; the known names are listed.
    """
    if name not in POLICIES:
        raise UsageError(unknown("policy", name, POLICIES))
    return POLICIES[name]


def first_plan(
    policy: str,
    batch_size: int,
    num_ranks: int,
    shares: Sequence[float] | None = None,
    quantum: int = 1,
    *,
    whole: bool = False,
) -> Plan:
    """The plan that a run begins with, before anything is measured.

    Args:
        policy: a name in `POLICIES`.
        batch_size: samples of a global batch, >= 1.
        num_ranks: ranks that train, >= 1.
        shares: relative share of each rank, >= 0, shape (num_ranks,); None for equal shares.
        quantum: samples of a micro-batch, >= 1.
        whole: whether ranks shall get whole micro-batches.
    """
    situation = Situation.unknown(batch_size, num_ranks, shares, quantum, whole=whole)
    return Plan(find_policy(policy).split(situation))
