"""What each rank does in a study: wait for an order, train a trial with its group, say how it went.

    rank 0    [ pump | train: pump at every phase ...... | pump | train ...      pump: hear ranks,
    rank 1    [ wait | train: report -> reply ....       | wait | train ...      decide, tell them

Rank 0 decides and trains, in one thread: what others say is heard whenever a phase of its own
training begins, a few times in every step.
"""

from __future__ import annotations

import shutil
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import torch

from hpc_train.checkpoint import Store
from hpc_train.comm import Comm
from hpc_train.errors import HpcTrainError, LostRanksError
from hpc_train.observe import read_result
from hpc_train.record import Hook, Leave
from hpc_train.stop import StopFlag
from hpc_train.train import Trainer
from hpc_train.train.device import set_tf32
from hpc_train.tune.coordinator import Message
from hpc_train.tune.prepare import Prepared
from hpc_train.tune.reporter import Reporter, TrialStop
from hpc_train.world import on_coordinator

_POLL_SECONDS = 0.002
_LOOK_SECONDS = 0.01  # looking costs some ten microseconds, so this much of a trial's time


class Lead(Protocol):
    """What rank 0 has besides: it hears all ranks, decides, and lets them know."""

    def hear(self, rank: int, message: Message) -> None:
        """Hear what a rank says."""

    def pump(self) -> None:
        """Hear all ranks, decide, and send what has been decided."""


class Member:
    """One rank of a study.

    Args:
        prepared: the study.
        comm: all ranks of the job.
        device: this rank's.
        threads: of torch, for this rank.
        stop: raised when the whole study shall save and leave.
        hooks: listeners to the phases of this rank, such as fault injection.

    Attributes:
        lead: on rank 0, what hears ranks and decides; None elsewhere.
    """

    def __init__(
        self,
        prepared: Prepared,
        comm: Comm,
        device: torch.device,
        threads: int,
        stop: StopFlag,
        hooks: tuple[Hook, ...] = (),
    ) -> None:
        self.lead: Lead | None = None
        self.box = comm.mailbox()
        self._prepared = prepared
        self._comm = comm
        self._device = device
        self._threads = threads
        self._stop = stop
        self._hooks = hooks
        self._orders: deque[Message] = deque()
        self._replies: deque[str] = deque()
        self._trial_stop: TrialStop | None = None
        self._thread = threading.get_ident()
        self._error: BaseException | None = None
        self._looked = 0.0

    def serve(self) -> Message:
        """Train what is ordered, until the study is over; the order that said so."""
        self._say({"what": "free", "stop": False})
        while True:
            self._look()
            self._raise()
            if not self._orders:
                time.sleep(_POLL_SECONDS)
                continue
            order = self._orders.popleft()
            if order["do"] == "end":
                return order
            self._train(order)
            self._say({"what": "free", "stop": self._stop.is_set})

    def hear(self, order: Message) -> None:
        """Take an order from rank 0."""
        if order["do"] == "reply":
            self._replies.append(order["decision"])
        elif order["do"] == "pause":
            if self._trial_stop is not None:
                self._trial_stop.is_set = True
        else:
            self._orders.append(order)

    def _look(self) -> None:
        """Hear what has come; on rank 0 also decide."""
        if self._stop.is_set and self._trial_stop is not None:
            self._trial_stop.is_set = True
        if self.lead is not None:
            self.lead.pump()
            return
        while (found := self.box.take()) is not None:
            self.hear(found[1])
        if self.box.gone and self.box.revoked and self._trial_stop is None:
            self._orders.append({"do": "end", "lost": len(self.box.gone)})  # the rest is told then
        elif 0 in self.box.gone:
            raise HpcTrainError(
                "rank 0 died, that leads the study", hint="start the same command again to go on"
            )

    def _say(self, message: Message) -> None:
        if self.lead is not None:
            self.lead.hear(0, message)
        else:
            self.box.post(0, message)

    def _ask(self, message: Message) -> str:
        """Report, and wait for the answer."""
        self._say(message)
        while not self._replies:
            self._look()
            if not self._replies:
                time.sleep(_POLL_SECONDS / 4)
        return self._replies.popleft()

    def _hook(self, name: str, detail: dict[str, Any]) -> Leave:
        """Look when a phase of this rank's training begins, if it is time to."""
        due = time.perf_counter() - self._looked >= _LOOK_SECONDS
        if due and threading.get_ident() == self._thread and self._error is None:
            try:
                self._look()
                self._looked = time.perf_counter()
            except Exception as error:  # is not the trial's; raised when that has left
                self._error = error
                if self._trial_stop is not None:
                    self._trial_stop.is_set = True
        return _nothing

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _train(self, order: Message) -> None:
        """Train a trial with the other ranks of its group."""
        try:
            group = self._comm.group(order["ranks"], order["trial"] % 2**15)
        except Exception as error:
            if not self._comm.is_lost(error):
                raise
            lost = {"status": "lost", "reason": "a rank died before it began"}
            self._say({"what": "ended", "trial": order["trial"], **lost})
            return
        self._trial_stop = TrialStop()
        try:
            status, reason = self._attempt(group, order)
        finally:
            self._trial_stop = None
            self._replies.clear()
        if group.world.is_coordinator or group.lost:
            self._say(
                {"what": "ended", "trial": order["trial"], "status": status, "reason": reason}
            )
        if status != "lost":
            group.close()

    def _attempt(self, group: Comm, order: Message) -> tuple[str, str]:
        """How a trial ended: "done", "paused", "failed" or "lost", and why."""
        folder = self._prepared.folder / "trials" / f"{order['trial']:04d}"
        try:
            return self._fit(group, order, folder), ""
        except LostRanksError as error:
            return "lost", error.lines()[0]
        except Exception as error:
            if group.is_lost(error):
                return "lost", "a rank of the group died"
            alone = group.world.size == 1
            if not alone and not (isinstance(error, HpcTrainError) and error.agreed):
                raise  # the others of the group do not know of it
            if group.world.is_coordinator:
                _leave_trace(folder, error)
            known = isinstance(error, HpcTrainError)
            return "failed", error.lines()[0] if known else repr(error)  # type: ignore[attr-defined]

    def _fit(self, group: Comm, order: Message, folder: Path) -> str:
        """Train a trial from where it is."""
        begin = on_coordinator(group, lambda: _begin(folder, order["generation"]))
        if begin == "done":
            return "done"
        config = self._prepared.config(
            order["params"], [f"run.dir={folder}", f"device.threads={self._threads}"]
        )
        set_tf32(config.precision.tf32)
        assert self._trial_stop is not None
        reporter = Reporter(
            group,
            order["trial"],
            self._prepared.study.metrics,
            self._prepared.length(config),
            self._ask,
            self._trial_stop,
            order["steps"],
        )
        trainer = Trainer(
            config=config,
            comm=group,
            quiet=True,
            hooks=(*self._hooks, self._hook),
            stop=self._trial_stop,
            own_device=self._device,
            techniques=[reporter],
        )
        result = trainer.fit(resume=folder if begin == "resume" else None)
        return "done" if result.status == "done" else "paused"


def _begin(folder: Path, generation: int) -> str:
    """What there is of a trial: "done", "resume", or "new" after what is left of it is removed."""
    inherited = folder / f"inherited-{generation:04d}"
    if inherited.is_dir():
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        inherited.replace(folder / "checkpoints")
    result = read_result(folder)
    if result is not None and result.status == "done":
        return "done"
    if Store(folder / "checkpoints").candidates():
        return "resume"
    shutil.rmtree(folder, ignore_errors=True)
    return "new"


def inherit(folder: Path, trial: int, donor: int, generation: int) -> None:
    """Copy a member's checkpoint for another one to go on from, whole or not at all."""
    place = folder / "trials" / f"{trial:04d}" / f"inherited-{generation:04d}"
    draft = place.with_suffix(".tmp")
    newest = Store(folder / "trials" / f"{donor:04d}" / "checkpoints").candidates()[0]
    for old in (draft, place):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(newest, draft / newest.name)
    draft.replace(place)


def _leave_trace(folder: Path, error: Exception) -> None:
    """Leave the traceback of a trial that failed beside its results."""
    folder.mkdir(parents=True, exist_ok=True)
    text = getattr(error, "trace", "") or "".join(traceback.format_exception(error))
    (folder / "error.txt").write_text(text, encoding="utf-8")


def _nothing() -> None:
    """Leave a phase."""
