"""Probing: ranks without samples get one (or one micro-batch) for two batches, now and then.

    batch      100  101  102 ...             interval ...            511  512  513
    counts     [32, 0]                                               [31, 1]   [32, 0]
               parked                                                probe     parked again, or not

The interval is so long that probing costs at most a hundredth of the time, by the last fit of the
slow rank; so a rank that would need 100 times the step for one sample is asked every ten thousand
steps or so, and one that is only a little too slow every few dozen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hpc_train.schedule.situation import Situation

_BATCHES = 2  # a jump is believed when it is seen twice
_BUDGET = 0.01  # part of the time that probing may take
_SHORTEST, _LONGEST = 25, 20_000


class Probes:
    """When parked ranks are probed next.

    Args:
        num_ranks: number of ranks.
    """

    def __init__(self, num_ranks: int) -> None:
        self._due = [0] * num_ranks  # the batch of each parked rank's next probe; 0: not parked
        self._until = 0  # the batch at which the running probe ends; 0: none runs
        self._back: tuple[int, ...] = ()

    @property
    def next(self) -> int:
        """The batch at which there is something to do; 0 if no rank is known to be parked."""
        return self._until or min((due for due in self._due if due), default=0)

    @property
    def running(self) -> bool:
        """Whether a probe runs."""
        return self._until > 0

    def begin(
        self, batch: int, counts: tuple[int, ...], situation: Situation, change_steps: float
    ) -> tuple[int, ...] | None:
        """The counts of a probe from `batch` on, if one is due; None if not.

        Args:
            batch: the batch from which the decision will hold.
            counts: the counts in force.
            situation: the ranks as they are known.
            change_steps: what a change of plan costs, in steps.
        """
        if 0 not in counts:
            return None
        due = []
        for rank, count in enumerate(counts):
            if count:
                self._due[rank] = 0
            elif self._due[rank] == 0:
                self._due[rank] = batch + self._interval(rank, counts, situation, change_steps)
            elif self._due[rank] <= batch:
                due.append(rank)
        if not due:
            return None
        probe = list(counts)
        for rank in due:
            self._due[rank] = 0
            giver = int(np.argmax(probe))
            if probe[giver] > situation.unit:
                probe[giver] -= situation.unit
                probe[rank] += situation.unit
        if tuple(probe) == counts:
            return None
        self._until, self._back = batch + _BATCHES, counts
        return tuple(probe)

    def after(self, batch: int) -> tuple[int, ...] | None:
        """The counts to return to, once the probe is over by `batch`; None while it runs."""
        if batch < self._until:
            return None
        self._until = 0
        return self._back

    def _interval(
        self, rank: int, counts: Sequence[int], situation: Situation, change_steps: float
    ) -> int:
        """Batches between probes of `rank`."""
        amount = np.asarray(counts)
        step = float((situation.fixed + situation.pace * amount)[amount > 0].max())
        probe = float(situation.fixed[rank] + situation.pace[rank] * situation.unit)
        lost_steps = _BATCHES * max(0.0, probe / step - 1.0) + 2 * change_steps
        if not math.isfinite(lost_steps):
            return _LONGEST
        return min(_LONGEST, max(_SHORTEST, round(lost_steps / _BUDGET)))
