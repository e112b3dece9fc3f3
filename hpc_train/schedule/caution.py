"""How much earlier a slow rank shall be done, where ranks need now more and now less for the same.

Steps end with the last rank. Let rank r finish at t_r(n_r) + x_r, x_r random. The expected end is
least, for all n that add up to the batch, where its derivatives are equal:

    d E[max] / d n_r = P(r is last) b_r = const        so        P(r is last) = w_r

with b_r the seconds of a sample and w_r = (1 / b_r) / sum (1 / b) the rank's part of all speed: to
let a slow rank wait costs little, to wait for it much. If the x_r follow Gumbel's distribution of
one deviation s, the scale of which is s sqrt(6) / pi, then (McFadden 1974, the multinomial logit)

    P(r is last) ~ exp(t_r / scale)                    so        t_r = T - scale ln(w_max / w_r)

For two ranks this is the logistic approximation of normal noise. Ranks of equal speed finish
together, however noisy they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from hpc_train.schedule.situation import Floats, Situation

_DEVIATION = 1.25  # of normal noise, from its mean absolute value
_SCALE = math.sqrt(6) / math.pi
# of the noise, what plans cannot follow: spells last for several steps, and speeds follow them;
# replaying sixteen runs under a CPU quota, 0.5 to 0.7 gave the most
_PART = 0.6
_MOST = 0.5  # of its time, that a rank shall be early


def careful(situation: Situation, noise: Floats, part: float = _PART) -> Situation:
    """The situation, with slow ranks taken for slower by as much as they shall be early.

    Args:
        situation: as measured.
        noise: mean absolute residual of the seconds of each rank that works, relative, shape (k,).
        part: of the noise, what is heeded.
    """
    deviation = _DEVIATION * part * math.sqrt(float((noise**2).mean()))
    early = _SCALE * deviation * np.log(situation.pace / situation.pace.min())
    factor: Floats = 1.0 + np.minimum(early, _MOST)
    return replace(situation, fixed=situation.fixed * factor, pace=situation.pace * factor)
