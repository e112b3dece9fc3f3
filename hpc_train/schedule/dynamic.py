"""The dynamic policy: shares by forecast, less a reserve that is claimed as the step goes on.

The shares are those of `min_finish_time`; the reserve, and who may claim what of it: `reserve`.
"""

from __future__ import annotations

from hpc_train.schedule.min_finish_time import min_finish_time
from hpc_train.schedule.situation import Policy, Situation


def _split(situation: Situation) -> tuple[int, ...]:
    return min_finish_time("dynamic", situation)


POLICY = Policy(_split, measures=True, reserves=True)
