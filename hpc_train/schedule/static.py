"""The static policy: shares that never change, equal or as stated."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_train.errors import ConfigError
from hpc_train.plan import Plan
from hpc_train.schedule.rounding import largest_remainders
from hpc_train.schedule.situation import Policy, Situation


def static(batch_size: int, num_ranks: int, shares: Sequence[float] | None = None) -> Plan:
    """Split `batch_size` samples in proportion to `shares`, exactly summing up.

    Raises:
        ConfigError: if there is not one share per rank, or none is positive.
    """
    weights = [1.0] * num_ranks if shares is None else list(shares)
    if len(weights) != num_ranks or sum(weights) <= 0:
        raise ConfigError(
            f"schedule.shares must hold one share for each of the {num_ranks} ranks, "
            f"with a positive sum (schedule.shares: {weights})",
            hint="leave it out for equal shares, or start as many ranks as there are shares",
        )
    return Plan(largest_remainders(batch_size, weights))


def _split(situation: Situation) -> tuple[int, ...]:
    return static(situation.batch_size, situation.num_ranks, situation.shares).counts


POLICY = Policy(_split, measures=False)
