"""How fast each rank is: t_r(n) = a_r + b_r n, fitted to the seconds that it reports.

    observation (n, t)  ->  residual = log(t / (a + b n))
      small               the sums of the fit forget a tenth and take it in
      large, the first    held back: an outlier, if the next one is as expected again
      large, more         in a row, to the same side, none much larger: a jump, believed the sooner
                          the larger it is (two steps of a factor of 1.65, five of 1.2); the fit
                          begins anew with all of them

What is held back and not confirmed is dropped, but only once in `_PATIENCE` steps, unless it is
much larger than the one before (stalls, by a factor of four and more, only count if they come more
often than every sixth step), and jumps are as rare: a rank that surprises more often is noisy
rather than changed (stalls of a CPU quota, a neighbour that comes and goes), and then its mean must
span the surprises.

The fit is least squares with weights 0.9^age (0.98^age where noise is large), and a prior on the
shape a/b that counts as one observation: as long as a rank has only ever had the same n, slope and
offset cannot be told apart and the shape decides; once n has varied by a few per cent, data do. The
shape is the rank's own where it has been seen, else the median of the others', else 0 (time in
proportion to n). All numbers are pure functions of the observations; arrays are over ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FORGET = 0.1  # what the sums forget with each observation: a memory of ten ...
_QUIET = 0.1  # ... for noise up to this, longer beyond it, up to five times
_PRIOR = 1.0  # weight of the shape, in observations
_NOISE = 0.04  # mean |residual| that is assumed at first
_ADAPT = 0.1  # how fast the mean residual follows
_SURPRISE = 5.0  # a residual is large beyond so many times the mean one ...
_SMALL = 0.05  # ... and never below this
_PATIENCE = 12
_OFTEN = 6  # steps: stalls as far apart are no noise, and no share would be the better for them
_ALIKE = 4.0  # times the mean residual held: what is larger is none of the same jump
_EVIDENCE = 1.0  # a jump is believed when its residuals add up to this: two by a factor of 1.65 ...
_SURE = 5  # ... and after so many steps: a neighbour that comes and goes is no jump
_LOUDEST = 1.0  # a residual counts for no more than this in the unrest ...
_STALL = math.log(4)  # ... and a rare one beyond this not at all: a job that stood still
_LAZY = 8  # steps as expected that are learned from together
_VARIED = 0.02  # squared spread of n, in observations, from which a rank shows its own shape
_STEEPEST = 19.0  # largest shape, in mean counts
_FLOOR = 0.05  # least part of the seconds that depends on n


class Speeds:
    """The fitted speeds of all ranks.

    Attributes:
        fixed: a_r in seconds, shape (num_ranks,); 0 where nothing is known yet.
        pace: b_r in seconds per sample, shape (num_ranks,); NaN where nothing is known yet.
        noise: mean absolute residual, relative, shape (num_ranks,).
        version: grows with every new fit.
    """

    def __init__(self, num_ranks: int) -> None:
        self.fixed = np.zeros(num_ranks)
        self.pace = np.full(num_ranks, np.nan)
        self.noise = np.full(num_ranks, _NOISE)
        self.version = 0
        self._unrest = np.full(num_ranks, _NOISE)  # mean |residual|, surprises included
        self._shape = np.zeros(num_ranks)
        self._sums = np.zeros((5, num_ranks))  # of 1, n, n n, t, n t
        self._held = np.zeros((4, num_ranks))  # sums of 1, residuals, n, t of what is held back
        self._own = np.zeros(num_ranks, np.bool_)  # whose shape is its own
        self._is_holding = False
        self._calm = np.full(num_ranks, _PATIENCE)  # steps since a drop or a jump
        self._moving = np.full(num_ranks, _OFTEN)  # steps since a stall
        self._struck = np.zeros(num_ranks)  # |residual| that was last held back
        self._steps = 0  # since a change
        self._counts: tuple[int, ...] = ()
        self._amount = np.zeros(num_ranks)
        self._expected = np.full(num_ranks, np.nan)  # seconds for `_counts`
        self._lowest = np.full(num_ranks, -np.inf)  # seconds below which they surprise ...
        self._highest = np.full(num_ranks, np.inf)  # ... and above which
        self._waiting: list[Floats] = []

    @property
    def known(self) -> Flags:
        """Which ranks have been measured, shape (num_ranks,)."""
        result: Flags = ~np.isnan(self.pace)
        return result

    @property
    def error(self) -> Floats:
        """Relative standard error of the predictions, shape (num_ranks,)."""
        weight: Floats = np.maximum(self._sums[0], 1.0)
        noise = np.maximum(self.noise, self._unrest)
        result: Floats = 1.25 * noise / np.sqrt(weight)  # 1.25: from mean |x| to deviation
        return result

    def seconds(self, counts: ArrayLike) -> Floats:
        """Predicted seconds of each rank for `counts` samples; 0 for none, NaN if unknown."""
        amount = np.asarray(counts, np.float64)
        return np.where(amount > 0, self.fixed + self.pace * amount, 0.0)

    @property
    def mean_pace(self) -> Floats:
        """Mean seconds per sample of the recent steps, shape (num_ranks,); NaN if unknown.

        No rank can need more for a sample than this, whatever its fixed costs, for as many samples
        as it had, or more.
        """
        with np.errstate(all="ignore"):
            result: Floats = self._sums[3] / self._sums[1]
        return result

    def observe(self, counts: Sequence[int], seconds: Sequence[float]) -> None:
        """Take in one step.

        Args:
            counts: samples of each rank, shape (num_ranks,); ranks with 0 tell nothing.
            seconds: what each rank was busy for, waiting excluded, shape (num_ranks,).
        """
        busy = np.asarray(seconds, np.float64)
        self._steps += 1
        if tuple(counts) != self._counts:
            self._flush()
            self._counts, self._steps = tuple(counts), 1
            self._amount = np.asarray(counts, np.float64)
            self._fit()
        surprising = (busy < self._lowest) | (busy > self._highest)
        if surprising.any() or self._is_holding:
            self._flush()
            seen = (self._amount > 0) & (busy > 0)
            self._take(seen & ~self._surprise(surprising & seen, busy, seen), busy)
            self._fit()
            return
        # nothing new: a step that is as expected need not be learned from at once
        self._waiting.append(busy)
        if len(self._waiting) >= min(_LAZY, max(1, self._steps // 2)):
            self._flush()

    def _residual(self, busy: Floats) -> Floats:
        with np.errstate(all="ignore"):
            result: Floats = np.log(busy / self._expected)
        return result

    def _flush(self) -> None:
        """Learn from the steps that wait, all with the same counts, in one go."""
        if not self._waiting:
            return
        times = np.stack(self._waiting)  # (num_steps, num_ranks)
        seen = (self._amount > 0) & (times > 0).all(axis=0)
        n, steps = self._amount[seen], len(times)
        with np.errstate(all="ignore"):
            size = np.abs(np.log(times / self._expected))
        size = np.minimum(size, 4 * self.noise).mean(axis=0)
        keep = self._keep(seen)
        weights = keep ** np.arange(steps - 1, -1, -1)[:, None]
        weight, time = weights.sum(axis=0), (weights * times[:, seen]).sum(axis=0)
        self._sums[:, seen] *= keep**steps
        self._sums[:, seen] += [weight, n * weight, n * n * weight, time, n * time]
        old = seen & self.known
        part = 1 - (1 - _ADAPT) ** steps
        self.noise[old] += part * (size - self.noise)[old]
        self._unrest[old] += part * (size - self._unrest)[old]
        self._calm += steps
        self._moving += steps
        self._waiting.clear()
        self._fit()

    def _keep(self, ranks: Flags) -> Floats:
        """What the sums of `ranks` keep with each observation."""
        result: Floats = 1.0 - _FORGET * np.clip(_QUIET / self.noise[ranks], 0.2, 1.0)
        return result

    def _soften(self, ranks: Flags, size: Floats) -> None:
        """Let the mean residual follow; a single large one moves it a little."""
        self.noise[ranks] += _ADAPT * (
            np.minimum(size[ranks], 4 * self.noise[ranks]) - self.noise[ranks]
        )

    def _surprise(self, surprising: Flags, busy: Floats, seen: Flags) -> Flags:
        """Hold back, or begin anew where it is a jump; gives the ranks that are done with."""
        self._calm += 1
        self._moving += 1
        residual = self._residual(busy)
        size = np.abs(residual)
        count, held = self._held[0], self._held[1]
        holding = seen & (count > 0)
        alike = holding.copy()  # to the same side, and not much more: else the first told nothing
        ratio = residual[holding] * count[holding] / held[holding]
        alike[holding] = (ratio > 1 / 2) & (ratio < _ALIKE)
        jump = alike & ((np.abs(held + residual) > _EVIDENCE) | (count + 1 >= _SURE))
        stalls = surprising & (size > _STALL)
        calm = (self._calm >= _PATIENCE) | (size > 2 * self._struck)
        calm = np.where(stalls, self._moving >= _OFTEN, calm)
        self._moving[stalls] = 0
        larger = holding & (np.where(holding, size, 0.0) * count > _ALIKE * np.abs(held))
        first = surprising & calm & (~holding | larger)
        told = seen & self.known & ~(first & stalls)
        self._unrest[told] += _ADAPT * (np.minimum(size, _LOUDEST) - self._unrest)[told]
        self._struck[first] = size[first]
        if jump.any():
            self._steps = 1
            self._begin_anew(jump)
            self._take(jump, busy)
        more = alike & ~jump
        hold = more | first
        self._calm[holding & ~hold] = 0
        self._held[:, ~more] = 0.0
        self._held[:, hold] += [np.ones(hold.sum()), residual[hold], self._amount[hold], busy[hold]]
        self._is_holding = bool(hold.any())
        self._soften(seen & ~jump & ~hold & self.known, size)
        result: Flags = jump | hold
        return result

    def _begin_anew(self, ranks: Flags) -> None:
        """Let what is held back of `ranks` be all that is known of them."""
        count, _, n, t = self._held[:, ranks]
        mean, time = n / count, t / count
        self._sums[:, ranks] = [count, n, n * mean, t, n * time]

    def _take(self, ranks: Flags, busy: Floats, amount: Floats | None = None) -> None:
        """Take the seconds of `ranks` into their sums."""
        n, t = (self._amount if amount is None else amount)[ranks], busy[ranks]
        self._sums[:, ranks] *= self._keep(ranks)
        self._sums[:, ranks] += [np.ones_like(n), n, n * n, t, n * t]

    def _fit(self) -> None:
        """Weighted least squares of t = a + b n, with the prior a = shape b."""
        self.version += 1
        self._learn_shapes()
        s0, sn, snn, st, snt = self._sums
        shape = self._shape
        a11, a12, a22 = s0 + _PRIOR, sn - _PRIOR * shape, snn + _PRIOR * shape**2
        with np.errstate(all="ignore"):
            det = a11 * a22 - a12 * a12
            fixed = (a22 * st - a12 * snt) / det
            pace = (a11 * snt - a12 * st) / det
            least = _FLOOR * st / sn
            flat, sinking = pace < least, fixed < 0
            pace = np.where(flat, least, np.where(sinking, snt / snn, pace))
            fixed = np.where(flat, (st - least * sn) / s0, np.where(sinking, 0.0, fixed))
        known = s0 > 0
        self.fixed = np.where(known, fixed, 0.0)
        self.pace = np.where(known, pace, np.nan)
        self._expected = self.fixed + self.pace * self._amount
        self._bound()

    def _bound(self) -> None:
        """Seconds for the present counts that would be no surprise.

        Where the shape is not known, whatever lies between time that does not depend on n and time
        in proportion to n may be its doing.
        """
        s0, sn, _, st, _ = self._sums
        limit = np.exp(np.maximum(_SMALL, _SURPRISE * self.noise))
        low = high = self._expected
        with np.errstate(all="ignore"):
            flat, steep = st / s0, st / sn * self._amount
        low = np.where(self._own, low, np.minimum(low, np.minimum(flat, steep)))
        high = np.where(self._own, high, np.maximum(high, np.maximum(flat, steep)))
        told = (self._amount > 0) & (s0 > 0)
        self._lowest = np.where(told, low / limit, -np.inf)
        self._highest = np.where(told, high * limit, np.inf)

    def _learn_shapes(self) -> None:
        """The prior of each rank: its own shape where n has varied, else the others' median."""
        s0, sn, snn, st, snt = self._sums
        with np.errstate(all="ignore"):
            spread = snn - sn**2 / s0
            varied = spread > np.maximum(_VARIED, 16 * self.noise**2) * (sn / s0) ** 2
            if not varied.any():
                return
            slope = np.maximum(snt - sn * st / s0, 0.0) / spread
            own = np.clip((st - slope * sn) / (s0 * slope), 0.0, _STEEPEST * sn / s0)
        self._shape[varied] += 0.5 * (own - self._shape)[varied]
        self._own |= varied
        self._shape[~self._own] = np.median(self._shape[self._own])
