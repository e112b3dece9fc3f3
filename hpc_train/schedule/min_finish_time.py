"""The min-finish-time policy: the split whose last rank finishes as early as possible.

The exact solution for the fitted line t_r(n) = a_r + b_r n of each rank: all ranks that take part
finish together, to within one sample, and a rank too slow to help gets nothing. See `split`. Where
steps are noisy the lines are those of `caution`.
"""

from __future__ import annotations

from functools import partial

from hpc_train.schedule.situation import Policy, Situation, refuse_shares
from hpc_train.schedule.split import split


def min_finish_time(policy: str, situation: Situation) -> tuple[int, ...]:
    """That split, for the policy called `policy`.

    Raises:
        ConfigError: if shares are stated.
    """
    refuse_shares(policy, situation)
    counts = split(
        situation.batch_size,
        situation.fixed,
        situation.pace,
        caps=situation.caps,
        quantum=situation.unit,
    )
    return tuple(counts.tolist())


POLICY = Policy(partial(min_finish_time, "min_finish_time"), measures=True, heeds_noise=True)
