"""Faults: ranks that fail on purpose, at an exact batch and phase, or at random times.

    kill:1@50           rank 1 sends itself SIGKILL in batch 50, as its computing begins
    stop:2@30           rank 2 stops as by SIGSTOP
    hang:1@40:data      rank 1 sleeps for ever, as it asks for the data of batch 40
    exit:0@20           rank 0's process ends with exit code 1, without a word
    raise:3@10          rank 3 raises an exception
    preempt@80          all ranks get SIGUSR1 in batch 80, as before their time is up
    disk-full@ckpt2     whoever writes a part of the second checkpoint finds the disk full
    kill:any@30s        a random rank, at random instants, every 30 s in the mean
    kill:any@30s:seed=7

Times between random faults are exponential; when and whom they hit is a pure function of the seed
and the number of ranks. A fault that would hit a rank that is gone hits nobody.
"""

from __future__ import annotations

import errno
import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hpc_train import philox
from hpc_train.errors import UsageError, unknown
from hpc_train.record import PHASES, Leave

KINDS = ("kill", "stop", "hang", "exit", "raise")
PREEMPT, DISK_FULL = "preempt", "disk-full"
RANDOM = (*KINDS, PREEMPT, DISK_FULL)
FORM = (
    f"{'|'.join(KINDS)}:RANK@BATCH[:PHASE], {PREEMPT}@BATCH, {DISK_FULL}@ckptNUMBER, "
    "or each of them as KIND:any@SECONDSs[:seed=N]"
)
_PREEMPT = re.compile(PREEMPT + r"@(?P<batch>\d+)")
_DISK_FULL = re.compile(DISK_FULL + r"@ckpt(?P<number>[1-9]\d*)")
_EXACT = re.compile(r"(?P<kind>[a-z]+):(?P<rank>\d+)@(?P<batch>\d+)(?::(?P<phase>[a-z_]+))?")
_RANDOM = re.compile(r"(?P<kind>[a-z-]+):any@(?P<mean>\d+(?:\.\d+)?)s(?::seed=(?P<seed>\d+))?")
_STREAM = 0x4B494C4C  # of the random bits, apart from all others


class InjectedError(Exception):
    """What `raise` raises."""


@dataclass(frozen=True)
class Fault:
    """Something happens to a rank once.

    Attributes:
        kind: one of `RANDOM`.
        rank: whom it befalls, as ranks were numbered at the beginning; None for all.
        batch: the number of the global batch; of "disk-full" that of the checkpoint, from 1 on.
        phase: the phase at whose beginning it happens.
    """

    kind: str
    rank: int | None
    batch: int
    phase: str = "compute"


@dataclass(frozen=True)
class RandomFaults:
    """Ranks fail at random.

    Attributes:
        kind: one of `RANDOM`.
        mean_seconds: between two faults of the job, > 0.
        seed: of times and ranks.
    """

    kind: str
    mean_seconds: float
    seed: int = 0

    def schedule(self, num_ranks: int) -> Iterator[tuple[float, int]]:
        """When, in seconds from the beginning, and whom; without end."""
        now, number = 0.0, 0
        while True:
            words = philox.bits(self.seed, _STREAM, 0, 2, start=number)
            now -= self.mean_seconds * math.log((int(words[0]) + 1) / 2**32)
            yield now, int(words[1]) % num_ranks
            number += 1


def parse(text: str) -> Fault | RandomFaults:
    """The fault that a text describes.

    Raises:
        UsageError: if it describes none.
    """
    if (found := _EXACT.fullmatch(text)) and found["kind"] in KINDS:
        phase = found["phase"] or "compute"
        if phase not in PHASES:
            raise UsageError(unknown("phase", phase, PHASES), where="--inject")
        return Fault(found["kind"], int(found["rank"]), int(found["batch"]), phase)
    if found := _PREEMPT.fullmatch(text):
        return Fault(PREEMPT, None, int(found["batch"]))
    if found := _DISK_FULL.fullmatch(text):
        return Fault(DISK_FULL, None, int(found["number"]), "checkpoint")
    if (found := _RANDOM.fullmatch(text)) and found["kind"] in RANDOM:
        mean = float(found["mean"])
        if mean <= 0:
            raise UsageError(
                f'the mean time between faults must be above 0 s ("{text}")', where="--inject"
            )
        return RandomFaults(found["kind"], mean, int(found["seed"] or 0))
    raise UsageError(
        f'a fault must read {FORM} ("{text}")',
        where="--inject",
        hint="for example --inject kill:1@50, hang:1@40:data, preempt@80 or kill:any@30s:seed=7",
    )


def is_once(text: str) -> bool:
    """Whether what a text describes happens in one batch, and never again."""
    return any(form.fullmatch(text) for form in (_EXACT, _PREEMPT, _DISK_FULL))


class Striker:
    """A hook that lets this rank fail as faults say.

    Random times count from the first batch. Faults that a thread can inflict happen at that very
    instant; an exception or a hang, at the beginning of the next phase of the training thread.

    Args:
        faults: what shall happen.
        rank: this one.
        num_ranks: how many there are at the beginning.
    """

    def __init__(self, faults: Sequence[Fault | RandomFaults], rank: int, num_ranks: int) -> None:
        exact = [f for f in faults if isinstance(f, Fault) and f.rank in (None, rank)]
        self._exact = [f for f in exact if f.kind != DISK_FULL]
        self._full = [f.batch for f in exact if f.kind == DISK_FULL]  # numbers of checkpoints
        self._saves = 0
        self._random = [f for f in faults if isinstance(f, RandomFaults)]
        self._rank, self._num_ranks = rank, num_ranks
        self._thread = threading.get_ident()
        self._batch = -1
        self._evaluating = False
        self._started = False
        self._due: list[str] = []  # what a thread left to be done here

    def __call__(self, name: str, detail: dict[str, Any]) -> Leave:
        if name == "checkpoint":
            self._save(detail.get("operation"))
        if threading.get_ident() != self._thread:
            return _nothing
        if not self._evaluating:  # an evaluation counts batches of its own
            self._batch = detail.get("batch", self._batch)
        if self._batch >= 0 and not self._started:
            self._start()
        if self._due:
            strike(self._due.pop())
        for fault in self._exact:
            if fault.batch == self._batch and fault.phase == name:
                self._exact.remove(fault)
                strike(fault.kind)
                break
        if name != "evaluate":
            return _nothing
        self._evaluating = True
        return self._evaluated

    def _save(self, what: str | None) -> None:
        """Count checkpoints; let whoever writes a part of one that is to fail find no space."""
        if what == "begin":
            self._saves += 1
        elif what == "write" and self._saves in self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _evaluated(self) -> None:
        self._evaluating = False

    def _start(self) -> None:
        self._started = True
        for faults in self._random:
            thread = threading.Thread(target=self._inflict, args=(faults,), daemon=True)
            thread.name = "faults"
            thread.start()

    def _inflict(self, faults: RandomFaults) -> None:
        started = time.monotonic()
        for at, rank in faults.schedule(self._num_ranks):
            time.sleep(max(0.0, started + at - time.monotonic()))
            if rank != self._rank:
                continue
            if faults.kind == DISK_FULL:
                self._full.append(self._saves + 1)
            elif faults.kind in ("hang", "raise"):
                self._due.append(faults.kind)
            else:
                strike(faults.kind)


def strike(kind: str) -> None:
    """Let this process fail, or get the signal to leave: a kind in `KINDS`, or `PREEMPT`."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == PREEMPT:
        os.kill(os.getpid(), signal.SIGUSR1)
    elif kind == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif kind == "exit":
        os._exit(1)
    elif kind == "raise":
        raise InjectedError("injected by --inject")
    else:
        while True:
            time.sleep(3600)


def _nothing() -> None:
    """Leave a phase."""
