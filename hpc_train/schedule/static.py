"""The static policy: shares that never change, equal or as stated."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from hpc_train.errors import ConfigError
from hpc_train.plan import Plan


def static(batch_size: int, num_ranks: int, shares: Sequence[float] | None = None) -> Plan:
    """Split `batch_size` samples in proportion to `shares`, exactly summing up.

    Rounded by largest remainders (Hamilton's method), lower ranks first among equals; computed in
    fractions, so that every machine finds the same.

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
    total = sum(Fraction(weight) for weight in weights)
    exact = [Fraction(weight) * batch_size / total for weight in weights]
    counts = [int(part) for part in exact]
    ranked = sorted(range(num_ranks), key=lambda r: (counts[r] - exact[r], r))
    for rank in ranked[: batch_size - sum(counts)]:
        counts[rank] += 1
    return Plan(tuple(counts))
