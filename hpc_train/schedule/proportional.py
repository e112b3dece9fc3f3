"""The proportional policy: shares in proportion to measured speed, samples per second.

Speed is taken at an equal share of the batch, B/p: n_r ~ 1 / (a_r p/B + b_r). Without fixed costs
all ranks finish together; with fixed costs those with small shares finish late, which is what
`min_finish_time` mends.
"""

from __future__ import annotations

import numpy as np

from hpc_train.schedule.rounding import largest_remainders
from hpc_train.schedule.situation import Policy, Situation, refuse_shares


def _split(situation: Situation) -> tuple[int, ...]:
    refuse_shares("proportional", situation)
    each = situation.batch_size / situation.num_ranks
    speeds = 1.0 / (situation.fixed / each + situation.pace)
    units, rest = divmod(situation.batch_size, situation.unit)
    counts = [n * situation.unit for n in largest_remainders(units, speeds.tolist())]
    counts[int(np.argmax(speeds))] += rest
    return tuple(counts)


POLICY = Policy(_split, measures=True)
