"""The trainer: what a script makes and fits, and what the command line makes of a configuration."""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from hpc_train import log
from hpc_train.checkpoint import Store
from hpc_train.comm import Comm, connect, explain
from hpc_train.comm.exits import abort_on_uncaught, exit_code
from hpc_train.config import Config, load, to_toml
from hpc_train.errors import (
    EXIT_DONE,
    EXIT_REQUEUE,
    ConfigError,
    HpcTrainError,
    LostStateError,
)
from hpc_train.observe import (
    Forgiving,
    MetricsFile,
    Progress,
    Result,
    Sink,
    Start,
    environment,
    last_batch,
    told_restarts,
)
from hpc_train.record import Hook, Stopwatch, listening
from hpc_train.recovery.vigil import Vigil
from hpc_train.stop import StopFlag
from hpc_train.train import central, ensemble, rundir
from hpc_train.train.build import Own, Parts, build
from hpc_train.train.device import peak_bytes, take_device
from hpc_train.train.lock import Lock
from hpc_train.train.loop import Loop
from hpc_train.train.memory import keep_freed_memory
from hpc_train.train.respawn import check_respawn
from hpc_train.train.saving import make_store
from hpc_train.train.summary import summary
from hpc_train.train.survival import make_survival
from hpc_train.train.technique import Technique
from hpc_train.train.walltime import TimedStop, end_of_job, wall_seconds
from hpc_train.train.way import Way, agreed, fresh, is_done, is_unsaved, resumed
from hpc_train.world import Json, on_coordinator, together

logger = logging.getLogger(__name__)


class Trainer:
    """Trains a model as a configuration describes, on every rank of the job.

    A script that makes one runs alone, or on many ranks under `mpirun python script.py`.

    Args:
        model: a network of the caller's own, or the table `[model]` of one to be built.
        config: a resolved configuration; None to make one from `sections`.
        comm: connected ranks; None to connect all ranks of the job.
        quiet: show no progress.
        stream: where progress is shown; standard output by default.
        hooks: further listeners to the phases of this rank, such as `recovery.disturb` makes.
        stop: raised by SIGUSR1, and by whoever wants the run to save and leave.
        own_device: of this rank, where `comm` is a group of ranks that share nodes with others.
        techniques: further techniques, after those of the configuration.
        sections: the tables of a configuration, such as `data={"train": ..., "inputs": ...}`.

    Attributes:
        config: the resolved configuration.
        model: the network, once `fit` has begun.

    Raises:
        ConfigError: if the configuration has mistakes; all of them are named.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, Any] | None = None,
        *,
        config: Config | None = None,
        comm: Comm | None = None,
        quiet: bool = False,
        stream: TextIO | None = None,
        hooks: Sequence[Hook] = (),
        stop: StopFlag | None = None,
        own_device: torch.device | None = None,
        techniques: Sequence[Technique] = (),
        **sections: Mapping[str, Any],
    ) -> None:
        if config is None:
            if model is not None:
                own = {"name": type(model).__name__}
                sections["model"] = own if isinstance(model, nn.Module) else model
            config = load(None, sections=sections).config
        elif sections:
            raise ConfigError(f"either config or sections may be given (sections: {[*sections]})")
        self.config = config
        self.model = model if isinstance(model, nn.Module) else None
        if comm is None:
            comm = connect()
            abort_on_uncaught(comm)
        self._comm = comm
        self._quiet = quiet
        self._stream = stream
        self._hooks = hooks
        self._stop = stop or StopFlag()
        self._own = Own(own_device, techniques)

    def fit(self, *, resume: str | Path | None = None) -> Result:
        """Train to the end of the run.

        Args:
            resume: a run directory to go on with, from its newest valid checkpoint.

        Returns:
            How it ended: status, metrics of the last evaluations, run directory.

        Raises:
            HpcTrainError: if it failed; the state before the failure is saved where possible.
        """
        started = time.perf_counter()
        comm = self._comm
        if comm.invitation is not None:
            return self._fit_replacing(comm.invitation.document, started)
        folder = Path(on_coordinator(comm, lambda: str(self._run_dir(resume))))
        if self.config.ensemble.members > 1:
            return self._fit_members(folder, resuming=resume is not None)
        config = self.config.model_copy(
            update={"run": self.config.run.model_copy(update={"dir": str(folder)})}
        )
        keep_freed_memory()
        with ExitStack() as stack:
            parts = build(config, comm, self.model, self._own)
            stack.callback(parts.close)
            check_respawn(parts)
            self.model = parts.model
            store = make_store(config, folder)
            lock = stack.enter_context(Lock(folder, os.environ))
            resuming = resume is not None
            on_coordinator(comm, lambda: _take(lock, folder, resuming=resuming))
            begun = resuming and not on_coordinator(comm, lambda: is_unsaved(store, folder))
            # before anything is written: an earlier run keeps its files if it cannot go on
            way = resumed(parts, store, folder) if begun else fresh(parts)
            self._prepare(parts.config, folder, resuming=resuming)
            handler = together(comm, lambda: self._log_file(folder))
            stack.callback(log.close_file, handler)
            if comm.world.is_coordinator:
                for line in (*explain(comm), *([f"run directory {lock.note}"] * bool(lock.note))):
                    logger.info("%s", line)
            loop = self._loop(stack, parts, store, way, folder, lock)
            return self._train(loop, folder, started)

    def _fit_replacing(self, told: Json, started: float) -> Result:
        """Train from where the others are, in place of a rank of theirs that died."""
        comm, folder = self._comm, Path(told["folder"])
        config = load(folder / "config.toml").config
        keep_freed_memory()
        with ExitStack() as stack:
            device = take_device(config, told["devices"][comm.number])
            with log.errors_only():  # the others have heard the rest
                parts = build(config, comm, self.model, Own(device, self._own.techniques))
            stack.callback(parts.close)
            self.model = parts.model
            way = Way.of(told["way"])
            parts.rates = dataclasses.replace(parts.rates, num_batches=way.end)
            stack.callback(log.close_file, self._log_file(folder))
            lock = stack.enter_context(Lock(folder, os.environ))
            loop = self._loop(stack, parts, make_store(config, folder), way, folder, lock)
            return self._train(loop, folder, started)

    def _train(self, loop: Loop, folder: Path, started: float) -> Result:
        """Run the loop, and tell how it ended."""
        try:
            status = loop.run()
        except Exception as error:
            self._failed(error, folder, loop)
            raise
        if status == "done":
            loop.parts.techniques.finish()
        result = self._result(status, folder, loop, time.perf_counter() - started)
        on_coordinator(self._comm, lambda: _write(result, folder))
        return result

    def _fit_members(self, folder: Path, *, resuming: bool) -> Result:
        """Train the members of an ensemble, each as a run of its own on a group of the ranks."""
        if self.model is not None:
            raise agreed(
                ConfigError(
                    "an ensemble needs a builder, of which every member gets its own network",
                    where="ensemble.members",
                    hint="name the builder: model.name = 'my_package.module:function'",
                )
            )
        if resuming and on_coordinator(self._comm, lambda: is_done(folder)):
            raise agreed(ConfigError("the run is complete already", where=str(folder)))
        self._prepare(self.config, folder, resuming=resuming)
        result, self.model = ensemble.train(self.config, self._comm, folder, self._fit_member)
        on_coordinator(self._comm, lambda: _write(result, folder))
        return result

    def _fit_member(self, config: Config, comm: Comm, resuming: bool) -> Result:
        quiet = self._quiet or not self._comm.world.is_coordinator
        member = Trainer(
            config=config,
            comm=comm,
            quiet=quiet,
            stream=self._stream,
            hooks=self._hooks,
            stop=self._stop,
        )
        return member.fit(resume=config.run.dir if resuming else None)

    def _prepare(self, config: Config, folder: Path, *, resuming: bool) -> None:
        """Make the run directory, on rank 0."""
        comm = self._comm
        facts = {"hosts": comm.gather(socket.gethostname()), "ranks": comm.world.size}

        def prepare() -> None:
            everything = {**environment(), **facts}
            rundir.prepare(folder, to_toml(config), everything, resuming=resuming)

        on_coordinator(comm, prepare)

    def _loop(
        self, stack: ExitStack, parts: Parts, store: Store, way: Way, folder: Path, lock: Lock
    ) -> Loop:
        """The loop, and who listens to it until the stack is left."""
        stopwatch = Stopwatch()
        stack.enter_context(self._stop.on_signal())
        stack.enter_context(listening(stopwatch))
        fresh, vigil = self._comm.invitation is not None, self._vigil(parts, folder)
        if vigil is not None:  # before whatever lets ranks fail
            stack.enter_context(vigil)
            if not fresh:
                vigil.begin()
        for hook in self._hooks:  # inside the stopwatch, which times what they do
            stack.enter_context(listening(hook))
        sinks = [] if fresh else together(self._comm, lambda: self._sinks(folder, way.batch))
        for sink in sinks:
            stack.callback(sink.close)
            sink.start(Start(way.batch, way.end, way.epochs, summary(parts, folder, way.batch)))

        def heir(batch: int) -> tuple[Sequence[Sink], int]:
            lock.inherit()
            last = last_batch(folder / "metrics.jsonl")
            made = self._sinks(folder, batch)
            for sink in made:
                stack.callback(sink.close)
                sink.start(Start(batch, way.end, way.epochs, ()))
            return made, last

        document = self._document(parts, way, folder)
        end = end_of_job(os.environ, wall_seconds(parts.config), time.time())
        stop = TimedStop(self._stop, end)
        loop = Loop(
            parts,
            store,
            sinks,
            stopwatch,
            stop,
            course=way.course,
            batch=way.batch,
            step=way.step,
            num_batches=way.end,
            survival=make_survival(parts, heir, vigil, lambda: document),
            fresh=fresh,
        )
        stop.save_seconds = lambda: loop.saving.seconds
        for why in told_restarts(os.environ)[-1:] if not fresh else ():
            loop.tell_event("restart", why)
        return loop

    def _document(self, parts: Parts, way: Way, folder: Path) -> Json:
        """What a rank is told that takes the place of another one; collective."""
        if self._comm.invitation is not None:
            return self._comm.invitation.document
        devices = self._comm.gather(str(parts.device))
        return {"folder": str(folder.absolute()), "way": way.document(), "devices": devices}

    def _vigil(self, parts: Parts, folder: Path) -> Vigil | None:
        section = parts.config.recovery
        if not section.watch:
            return None
        return Vigil(self._comm, folder, on_hang=section.on_hang, hang_seconds=section.hang_seconds)

    def _run_dir(self, resume: str | Path | None) -> Path:
        return rundir.new_run_dir(self.config) if resume is None else Path(resume)

    def _log_file(self, folder: Path) -> logging.Handler:
        rank = self._comm.number
        with rundir.writing(folder):
            return log.to_file(folder / "logs" / f"rank-{rank:04d}.log", rank)

    def _sinks(self, folder: Path, batch: int) -> list[Sink]:
        if not self._comm.world.is_coordinator:
            return []
        with rundir.writing(folder):
            # whoever goes on after a death, also from a checkpoint, must find all steps on record
            metrics = MetricsFile(folder / "metrics.jsonl", batch, flush_seconds=0.0)
            sinks: list[Sink] = [Forgiving(metrics)]
        return sinks if self._quiet else [*sinks, Forgiving(Progress(self._stream))]

    def _result(self, status: str, folder: Path, loop: Loop, seconds: float) -> Result:
        counts = loop.parts.strategy.plan.counts
        rows = loop.records.figures.rows(self._comm.members, counts)
        for row, peak in zip(rows, self._comm.gather(peak_bytes(loop.parts.device)), strict=True):
            row["peak_memory_bytes"] = peak
        return Result(
            status=status,
            exit_code=EXIT_DONE if status == "done" else EXIT_REQUEUE,
            step=loop.step,
            metrics=loop.metrics,
            run_dir=str(folder),
            seconds=seconds,
            samples_per_second=loop.records.figures.samples_per_second,
            ranks=rows,
            restarts=told_restarts(os.environ),
            balance=dataclasses.asdict(loop.parts.scheduler.balance),
            staleness=central.staleness(loop.parts.strategy),
            skipped_samples=loop.records.figures.skipped,
        )

    def _failed(self, error: Exception, folder: Path, loop: Loop) -> None:
        """Leave a result that says so; the error itself matters more than this file."""
        if not self._comm.world.is_coordinator:
            return
        if isinstance(error, LostStateError):
            return  # as if the death had ended the job: a supervisor starts it again
        lines = error.lines() if isinstance(error, HpcTrainError) else [repr(error)]
        result = Result(
            "failed",
            exit_code(error),
            loop.step,
            loop.metrics,
            str(folder),
            restarts=told_restarts(os.environ),
            error=lines,
        )
        try:
            _write(result, folder)
        except HpcTrainError as other:
            logger.warning("%s", other.lines()[0])


def _write(result: Result, folder: Path) -> None:
    with rundir.writing(folder):
        result.write(folder)


def _take(lock: Lock, folder: Path, *, resuming: bool) -> None:
    """Keep other jobs from the run directory."""
    if resuming and not folder.is_dir():
        return  # there is nothing to resume, which will be told
    with rundir.writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
