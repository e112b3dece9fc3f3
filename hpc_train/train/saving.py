"""When the run saves, and what becomes of it: the loop's side of checkpoints.

Saves are due at the ends of segments ("100 steps", "1 epoch"), by rank 0's clock ("10 minutes",
"auto"), and after the best evaluation so far (`keep_best`). What the clock says and whether some
rank still writes travels in the tally of each step, so all ranks begin and finish in the same one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hpc_train.checkpoint import METRICS, Best, Pace, Saver, Store
from hpc_train.config import Config
from hpc_train.config.schema import parse_seconds
from hpc_train.plan import Cursor, Every
from hpc_train.record import phase
from hpc_train.strategies import Outcome, ParameterServer
from hpc_train.train import state
from hpc_train.train.build import Parts
from hpc_train.train.weights import MODEL
from hpc_train.world import RankError

_SLOW_DISK = 50e6  # bytes a second

logger = logging.getLogger(__name__)

Record = Callable[[dict[str, object]], None]


def make_store(config: Config, folder: Path) -> Store:
    """The checkpoints of the run in `folder`."""
    section = config.checkpoint
    best = None if section.keep_best is None else Best.parse(section.keep_best)
    return Store(folder / "checkpoints", section.keep_last, best)


class Saving:
    """Decides, begins and finishes the saves of a run; the same on every rank.

    Args:
        parts: the run.
        store: where checkpoints go.
        record: tells the sinks of an event.
        saved: the batch number of the checkpoint that the run was resumed from; -1 without one.

    Attributes:
        boundary: the period of saves at the ends of segments; never, if the clock says when.
    """

    def __init__(self, parts: Parts, store: Store, record: Record, saved: int) -> None:
        section = parts.config.checkpoint
        self._parts = parts
        self._record = record
        self._saver = Saver(store, parts.comm)
        # what is written behind the training is told of in steps that all ranks make together
        lockstep = not isinstance(parts.strategy, ParameterServer)
        self._asynchronous = section.asynchronous and lockstep
        self._saved = saved
        period = parse_seconds(section.every)
        self._timed = section.every == "auto" or period is not None
        self.boundary = Every(0, "steps") if self._timed else Every.parse(section.every)
        failures = parse_seconds(section.mean_time_between_failures)
        assert failures is not None  # the schema has checked it
        self._pace = Pace(period, failures)
        self._last = time.monotonic()
        # a run that saves at its end alone needs no copy
        self._prepared = not (self._timed or self.boundary.count or section.keep_best)
        self._best = None if section.keep_best is None else Best.parse(section.keep_best)
        self._best_value: float | None = None
        self._best_batch = -1
        if self._best is not None:
            known = store.best_value() if parts.comm.world.is_coordinator else None
            self._best_value = parts.comm.broadcast(known)
        self._evaluated: tuple[int, dict[str, float]] = (-1, {})
        self._guess = 0.0  # seconds of the first save

    @property
    def seconds(self) -> float:
        """What a save takes: as the last one did, or as a slow disk would let the first."""
        if self._saver.writing_seconds:
            return self._saver.writing_seconds
        if not self._guess:
            tensors = state.collect(self._parts).values()
            self._guess = 0.1 + sum(t.numel() * t.element_size() for t in tensors) / _SLOW_DISK
        return self._guess

    def flags(self) -> set[str]:
        """What this rank tells the others in the tally of a step."""
        found = {"saving"} if self._saver.busy else set()
        if self._timed and self._parts.comm.world.is_coordinator and self._is_due():
            found.add("save")
        return found

    def before_update(self) -> None:
        """Wait until what was saved may be written again."""
        if not self._saver.copying:
            return
        with phase("checkpoint", operation="copy"):
            self._saver.wait_for_copy()

    def hear(self, outcomes: Sequence[Outcome]) -> bool:
        """Hear what the ranks told in a step; true if a save is due by the clock.

        Raises:
            RankError: on every rank, for a bug in the writing; other failures warn.
        """
        flags = outcomes[-1].total.flags
        if self._saver.pending and not flags["saving"]:
            self._attempt(self._saver.advance)
        if not self._prepared and self._asynchronous:
            # after the first step the optimizer has its state
            self._saver.prepare(state.collect(self._parts))
            self._prepared = True
        return any(outcome.total.flags["save"] for outcome in outcomes)

    def evaluated(self, batch: int, metrics: dict[str, float]) -> bool:
        """Hear of an evaluation on the validation data; true if it is the best so far."""
        self._evaluated = (batch, metrics)
        if self._parts.techniques.listen:
            self._saved = -1  # a set that was saved just before does not hold what they learned
        if self._best is None:
            return False
        value = metrics[self._best.metric]
        again = self._best_batch == batch  # after a rank was lost in the middle of it
        better = again or self._best.beats(value, self._best_value)
        if better:
            self._best_value, self._best_batch = value, batch
            self._saved = -1  # a set that was saved just before the evaluation is not told of it
        return better

    def save(self, cursor: Cursor, batch: int, step: int, *, wait: bool) -> None:
        """Save the state before batch `batch`, unless that is done already.

        Args:
            cursor, batch, step: where the run is.
            wait: return when it is on the disk, and fail if it cannot be saved; else a failure
                warns, and the older ones are kept.

        Raises:
            RankError: on every rank.
        """
        if self._saved != batch:
            self.finish()
            notes = state.notes(self._parts, cursor, batch, step)
            if self._evaluated[0] == batch:
                notes[METRICS] = self._evaluated[1]
            self._saved = batch
            self._last = time.monotonic()
            tensors = state.collect(self._parts)
            copy = self._asynchronous and not wait
            # parameters and optimizer state are written by the next update, buffers by a forward
            buffers = {MODEL + name for name, _ in self._parts.model.named_buffers()}
            steady = tensors.keys() - buffers

            def begin() -> None:
                self._saver.begin(step, tensors, notes, copy=copy, steady=steady)

            self._attempt(begin, fail=wait)
        if wait or not self._asynchronous:
            self._attempt(self._saver.finish, fail=wait)

    def rescue(self) -> None:
        """Finish what is pending before the run leaves with an error; a failure warns."""
        with suppress(RankError):
            self.finish()

    def finish(self) -> None:
        """Return once nothing is pending; collective. A failure warns."""
        self._attempt(self._saver.finish)

    def document(self) -> dict[str, Any]:
        """What all ranks know alike, as JSON."""
        return {
            "saved": self._saved,
            "best": [self._best_value, self._best_batch],
            "evaluated": list(self._evaluated),
        }

    def take_up(self, document: Mapping[str, Any]) -> None:
        """Know what another rank's `document` says."""
        self._saved = document["saved"]
        self._best_value, self._best_batch = document["best"]
        self._evaluated = tuple(document["evaluated"])

    def abandon(self) -> None:
        """Forget a save that ranks took part in which are gone; it is due again."""
        self._saver.abandon()
        self._saved = -1

    def close(self) -> None:
        """Let this rank's thread end."""
        self._saver.close()

    def _is_due(self) -> bool:
        return not self._saver.pending and time.monotonic() - self._last >= self._pace.seconds

    def _attempt(self, act: Callable[[], None], *, fail: bool = False) -> None:
        """Do something with the saver; a failure warns, or is raised if it must or is a bug."""
        pending = self._saver.pending
        try:
            act()
        except RankError as error:
            self._saved = -1
            if fail or error.is_bug:
                raise
            if self._parts.comm.world.is_coordinator:  # all of them have the same error
                logger.warning("%s; going on with the older ones", error.lines()[0])
            self._record({"kind": "event", "event": "save failed", "text": ""})
            return
        if pending and not self._saver.pending:
            self._finished()

    def _finished(self) -> None:
        """A set is there: learn what it took, for the next one."""
        saver = self._saver
        blocked = saver.blocked_seconds if self._asynchronous else saver.writing_seconds
        self._pace = replace(self._pace, blocked=blocked, writing=saver.writing_seconds)
        logger.debug(
            "saved in %.3f s, %.4f s of them kept the training waiting",
            saver.writing_seconds,
            blocked,
        )
