"""Injection: ranks that are slower than they are, or fail, for drills and for laptops.

    slow:2=3x             rank 2 needs three times as long to compute
    slow:1=2x@100-200     rank 1 twice as long, in batches 100 to 200
    jitter:10%            each rank and batch by a random part longer, exponential, 10 % in the mean
    oom:1>32              rank 1 has no memory for more than 32 samples at once; see `scarce`
    kill:1@50             rank 1 gets SIGKILL in batch 50; see `recovery.faults` for all the others

A hook on the phases lets a rank sleep at the end of every "compute" phase, in proportion to what
the phase took; watches that were hung up earlier see it as computing.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpc_train import philox
from hpc_train.errors import UsageError
from hpc_train.record import Hook, Leave
from hpc_train.recovery import faults
from hpc_train.recovery.faults import Fault, RandomFaults
from hpc_train.recovery.scarce import Shortage, scarce

_RANGE = r"(?:@(?P<first>\d+)-(?P<last>\d+))?"
_SLOW = re.compile(r"slow:(?P<rank>\d+)=(?P<factor>\d+(?:\.\d+)?)x" + _RANGE)
_JITTER = re.compile(r"jitter:(?P<percent>\d+(?:\.\d+)?)%" + _RANGE)
_SHORT = re.compile(r"oom:(?P<rank>\d+)>(?P<most>\d+)" + _RANGE)
_SHORT_ONCE = re.compile(r"oom:(?P<rank>\d+)@(?P<batch>\d+)")
_STREAM = 0x4A495454  # of the random bits, apart from all others
_PHASE = "compute"
_AGAIN = 1_000_003  # between the seeds of those that take the place of others


@dataclass(frozen=True)
class Disturbance:
    """What shall happen to computing.

    Attributes:
        rank: whom it befalls; None for all.
        factor: how many times as long it takes, >= 1.
        jitter: mean of the random part that is added, as a fraction, >= 0.
        first, last: the batches in which it holds, both included; last is None for ever.
    """

    rank: int | None = None
    factor: float = 1.0
    jitter: float = 0.0
    first: int = 0
    last: int | None = None

    def extra(self, rank: int, batch: int) -> float:
        """Seconds to add for each second of computing of `rank` in `batch`."""
        if self.rank not in (None, rank) or batch < self.first:
            return 0.0
        if self.last is not None and batch > self.last:
            return 0.0
        if not self.jitter:
            return self.factor - 1.0
        word = int(philox.bits(rank, _STREAM, 0, 1, start=batch)[0])
        return -self.jitter * math.log((word + 1) / 2**32)


Injection = Disturbance | Fault | RandomFaults | Shortage


def parse(text: str) -> Injection:
    """What shall be injected, as a text describes it.

    Raises:
        UsageError: if it describes nothing.
    """
    if re.split("[:@]", text)[0] in faults.RANDOM:
        return faults.parse(text)
    if found := _SLOW.fullmatch(text):
        factor = float(found["factor"])
        if factor < 1:
            raise UsageError(
                f'a rank can only be made slower, by a factor of at least 1 ("{text}")',
                where="--inject",
                hint="slow down the others instead",
            )
        return Disturbance(int(found["rank"]), factor, 0.0, *_range(text, found))
    if found := _JITTER.fullmatch(text):
        return Disturbance(None, 1.0, float(found["percent"]) / 100, *_range(text, found))
    if found := _SHORT.fullmatch(text):
        return Shortage(int(found["rank"]), int(found["most"]), *_range(text, found))
    if found := _SHORT_ONCE.fullmatch(text):
        batch = int(found["batch"])
        return Shortage(int(found["rank"]), 0, batch, batch, once=True)
    raise UsageError(
        f"an injection must read slow:RANK=FACTORx, jitter:PERCENT% or oom:RANK>SAMPLES, and may "
        f'end with @FIRST-LAST, or oom:RANK@BATCH, {faults.FORM} ("{text}")',
        where="--inject",
        hint='for example --inject "slow:1=2x@100-200" or --inject kill:1@50',
    )


def check_ranks(injections: Sequence[Injection], num_ranks: int) -> None:
    """Check that every rank that is named exists.

    Raises:
        UsageError: if one does not.
    """
    for one in injections:
        if not isinstance(one, RandomFaults) and one.rank is not None and one.rank >= num_ranks:
            raise UsageError(
                f"rank must be below the number of ranks, {num_ranks} (rank: {one.rank})",
                where="--inject",
            )


def hooks(
    injections: Sequence[Injection], rank: int, num_ranks: int, *, again: int = 0
) -> list[Hook]:
    """The hooks that do to this rank what is to be injected; none where that is nothing.

    Args:
        injections: all of it.
        rank: this one, as numbered at the beginning.
        num_ranks: how many there were then.
        again: how many ranks had been lost when this one took the place of one of them; 0 if it
            does not. What was to happen in one batch has happened then.
    """
    slow = [one for one in injections if isinstance(one, Disturbance)]
    short = [one for one in injections if isinstance(one, Shortage)]
    failing = [one for one in injections if isinstance(one, Fault | RandomFaults)]
    if again:
        random = [one for one in failing if isinstance(one, RandomFaults)]
        # its times begin anew: with the same bits all of its kind would fail after the same time
        failing = [replace(one, seed=one.seed + again * _AGAIN) for one in random]
        short = [one for one in short if not one.once]
    found = [disturb(slow, rank)] if slow else []
    found += [scarce(short, rank)] if short else []
    return [*found, faults.Striker(failing, rank, num_ranks)] if failing else found


def disturb(
    disturbances: Sequence[Disturbance],
    rank: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Hook:
    """A hook that makes this rank sleep as `disturbances` say; several add up."""

    def hook(name: str, detail: dict[str, Any]) -> Leave:
        """Sleep at the end of a phase of computing, in proportion to its seconds."""
        if name != _PHASE:
            return _nothing
        extra = sum(one.extra(rank, detail.get("batch", 0)) for one in disturbances)
        started = clock()

        def leave() -> None:
            if extra > 0:
                sleep(extra * (clock() - started))

        return leave

    return hook


def _range(text: str, found: re.Match[str]) -> tuple[int, int | None]:
    if found["first"] is None:
        return 0, None
    first, last = int(found["first"]), int(found["last"])
    if first > last:
        raise UsageError(
            f'a range of batches must not end before it begins ("{text}")', where="--inject"
        )
    return first, last


def _nothing() -> None:
    """Leave a phase that is left alone."""
