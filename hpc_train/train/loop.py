"""The loop: segments of batches, each a step; then all ranks look up, evaluate and save."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import suppress

from hpc_train.checkpoint import Store
from hpc_train.errors import CheckpointError, NonFiniteError
from hpc_train.observe import Sink
from hpc_train.plan import Course, Every, Plan, Segment, Work, segments
from hpc_train.record import Stopwatch, phase
from hpc_train.stop import StopFlag
from hpc_train.strategies import Outcome, Tally
from hpc_train.train.build import Parts
from hpc_train.train.evaluation import evaluate
from hpc_train.train.saving import Saving
from hpc_train.train.step import check_metrics, compute
from hpc_train.world import RankError, agree

logger = logging.getLogger(__name__)

_TOLD_RANKS = 256  # beyond it, a step's record leaves out what each rank did


class Loop:
    """Trains from a position of the course to its end; the same on every rank.

    Args:
        parts: the run.
        store: where checkpoints go.
        sinks: who hears of steps and evaluations; none but on rank 0.
        stopwatch: times the phases of this rank.
        stop: raised when the run shall save and leave.
        course, batch, step: where it begins.
        num_batches: where it ends.
    """

    def __init__(
        self,
        parts: Parts,
        store: Store,
        sinks: Sequence[Sink],
        stopwatch: Stopwatch,
        stop: StopFlag,
        *,
        course: Course,
        batch: int,
        step: int,
        num_batches: int,
    ) -> None:
        self.parts = parts
        self.batch = batch
        self.step = step
        self.metrics: dict[str, dict[str, float]] = {}
        self.samples = 0
        self.seconds = 0.0
        size = parts.comm.world.size
        self.rank_samples = [0] * size
        self.busy_seconds = [0.0] * size
        self.waiting_seconds = [0.0] * size
        self._sinks = sinks
        self._stopwatch = stopwatch
        self._stop = stop
        self._course = course
        self._num_batches = num_batches
        self._saving = Saving(parts, store, self._record, saved=batch if batch else -1)
        self._busy = 0.0
        self._is_best = False  # whether the last evaluation was the best one
        self._clean = True  # whether the weights are as they were before the present batch
        self._foretold: Plan | None = None
        self._ending: str | None = None  # why a technique wants the run to end here

    def run(self) -> str:
        """Train to the end; "done", or "preempted" if the run was asked to save and leave."""
        config = self.parts.config
        self.parts.model.train()
        try:
            if self.batch == self._num_batches:  # an earlier part ended just before its result
                self._look_up(Segment(self.batch, self.batch, evaluate=True, save=True, last=True))
            for segment in segments(
                self._course,
                self.batch,
                self._num_batches,
                evaluate=Every.parse(config.run.evaluate),
                save=self._saving.boundary,
            ):
                leaving = self._train(segment)
                if leaving:
                    self._settle()
                    self._save(wait=True)
                if self.batch == segment.stop:
                    self._look_up(segment)
                if self._ending is not None:
                    self._end_early()
                    break
                if leaving and self.batch < self._num_batches:
                    return "preempted"
        except (RankError, NonFiniteError) as error:
            self._rescue(error)
            raise
        finally:
            self._saving.close()
        return "done"

    def _foretell(self) -> None:
        """Let the loader read ahead, as the present plan says, to the end of the run."""
        self._foretold = self.parts.strategy.plan
        batches = self._course.batches(self.batch, self._num_batches)
        with phase("data", operation="foretell"):  # a part of what a change of plan costs
            self.parts.loaders["train"].follow(self.parts.strategy.foretell(batches))

    def _train(self, segment: Segment) -> bool:
        """Train the batches of a segment; true if the run was asked to leave before its end."""
        batches = self._course.batches(segment.start, segment.stop)
        for work in self.parts.strategy.work(batches):
            started = time.perf_counter()
            if self._foretold is not self.parts.strategy.plan:
                self._foretell()
            outcomes = self._batch(work)
            self.batch += 1
            self._tell(work, outcomes, time.perf_counter() - started)
            if self._saving.hear(outcomes):
                self._save_now()
            if any(o.total.flags["preempted"] or o.total.flags["stop"] for o in outcomes):
                return True
        return False

    def _batch(self, work: Work) -> list[Outcome]:
        """One global batch, all phases of the task; a rank that fails tells the others so."""
        parts = self.parts
        outcomes: list[Outcome] = []
        samples = None
        self._clean = True
        parts.techniques.begin(work.batch)
        rate = parts.rates.factor(work.batch.number) * parts.techniques.rate_factor()
        for part, learner in zip(parts.task.phases, parts.learners, strict=True):
            learner.set_rate(rate)
            parts.strategy.begin(learner)
            error: Exception | None = None
            try:
                samples = samples or parts.loaders["train"].get(work)
                tally = compute(parts, part, samples, work)
                check_metrics(tally, parts.task.metrics)
                learner.gather()
                parts.techniques.gradients(learner, tally)
                tally.digest = samples.digest
            except Exception as raised:
                error, tally = raised, Tally(flags={"failed"})
            tally.busy_seconds, self._busy = self._busy, 0.0
            if self._stop.is_set:
                tally.flags.add("preempted")
            tally.flags |= self._saving.flags()
            self._saving.before_update()
            outcome = parts.strategy.finish(learner, tally)
            if outcome.total.flags["failed"]:
                agree(parts.comm, error)
            outcomes.append(outcome)
            if outcome.updated:
                parts.techniques.updated(learner)
            if not outcome.finite:
                self._not_finite(work, outcome)
            self._clean = False
        self._clean = True
        self.step += any(outcome.updated for outcome in outcomes)
        return outcomes

    def _not_finite(self, work: Work, outcome: Outcome) -> None:
        """Stop or go on when loss or gradient are not finite; no rank has updated."""
        what = "loss" if outcome.total.flags["non_finite"] else "gradient"
        place = f"batch {work.batch.number} of epoch {work.batch.epoch}"
        if self.parts.config.optimizer.non_finite == "skip":
            self._record({"kind": "event", "event": "skipped", "text": ""}, work)
            logger.warning("%s is not finite in %s: update skipped", what, place)
            return
        value = outcome.total.mean_loss if what == "loss" else outcome.norm
        error = NonFiniteError(
            f"{what} must be finite ({what} of {place}: {value})",
            hint="lower optimizer.lr, set optimizer.clip_norm, "
            'or set optimizer.non_finite = "skip"',
        )
        error.agreed = True
        raise error

    def _tell(self, work: Work, outcomes: list[Outcome], elapsed: float) -> None:
        """Record a step."""
        seconds = self._stopwatch.take()
        self._busy = sum(seconds.get(name, 0.0) for name in ("data", "compute", "update"))
        total = outcomes[0].total
        before = outcomes[0].before
        if before:
            self._add_up(before, total.busy_seconds)
        self.samples += work.batch.size
        self.seconds += elapsed
        self._record(
            {
                "kind": "step",
                "step": self.step,
                "loss": total.mean_loss,
                "metrics": total.means(),
                "lr": self.parts.learners[0].rate,
                "grad_norm": outcomes[0].norm,
                "samples_per_second": work.batch.size / elapsed,
                "seconds": {name: round(value, 6) for name, value in seconds.items()},
                "delivered": total.digest,
                **_balance(before, total.busy_seconds),
                **{
                    f"{key}_{learner.name}": value
                    for learner, outcome in zip(self.parts.learners[1:], outcomes[1:], strict=True)
                    for key, value in (("loss", outcome.total.mean_loss), ("lr", learner.rate))
                },
            },
            work,
        )

    def _add_up(self, counts: tuple[int, ...], busy_seconds: tuple[float, ...]) -> None:
        """Add up what each rank did in the step before."""
        slowest = max(busy_seconds)
        for rank, (count, busy) in enumerate(zip(counts, busy_seconds, strict=True)):
            self.rank_samples[rank] += count
            self.busy_seconds[rank] += busy
            self.waiting_seconds[rank] += slowest - busy

    def _look_up(self, segment: Segment) -> None:
        """At the end of a segment: equal weights, evaluation, checkpoint."""
        self._settle()
        due = ["validation"] if segment.evaluate else []
        if segment.last:
            due.append("test")
        for kind in due:
            if kind in self.parts.loaders:
                self._evaluate(kind)
        if segment.save or self._is_best:
            self._save(wait=segment.last)
        self._stopwatch.take()

    def _end_early(self) -> None:
        """End the run as a technique asked: with the evaluation and the save of every end."""
        logger.info("the run ends at batch %d: %s", self.batch, self._ending)
        self._record({"kind": "event", "event": "ended", "text": self._ending})
        if self.batch < self._num_batches:
            if "test" in self.parts.loaders:
                self._evaluate("test")
            self._save(wait=True)

    def _evaluate(self, kind: str) -> None:
        with self.parts.techniques.evaluating():
            metrics = evaluate(self.parts, kind)
        self.metrics[kind] = metrics
        if kind == "validation":
            self._is_best = self._saving.evaluated(self.batch, metrics)
            self._ending = self.parts.techniques.evaluated(self.batch, metrics)
        here = self._course.cursor(self.batch)
        self._record(
            {
                "kind": "evaluation",
                "data": kind,
                "step": self.step,
                "metrics": metrics,
                "epoch": here.epoch + here.samples / self._course.num_samples,
            }
        )

    def _save(self, *, wait: bool) -> None:
        """Save a checkpoint, see `Saving.save`."""
        self._is_best = False
        self._saving.save(self._course.cursor(self.batch), self.batch, self.step, wait=wait)

    def _settle(self) -> None:
        """Let all ranks hold equal weights; a copy that is being made of them comes first."""
        self._saving.before_update()
        self.parts.strategy.settle()

    def _save_now(self) -> None:
        """Save in the middle of a segment."""
        self._settle()
        self._save(wait=False)
        self._stopwatch.take()

    def _rescue(self, error: RankError | NonFiniteError) -> None:
        """Before leaving with an error: save the state before the broken batch, if it is whole."""
        self._saving.rescue()
        if not self._clean or self.batch == 0:
            return
        with suppress(RankError, CheckpointError):
            self._settle()
            self._save(wait=True)

    def _record(self, record: dict[str, object], work: Work | None = None) -> None:
        """Tell all sinks, with the batch and epoch that it is about."""
        record.setdefault("step", self.step)
        record.setdefault("batch", self.batch)
        if work is not None:
            record.setdefault("epoch", work.batch.epoch)
        for sink in self._sinks:
            sink.record(record)


def _balance(counts: tuple[int, ...], busy_seconds: tuple[float, ...]) -> dict[str, object]:
    """What a step's record says of the step before: who did how much, and how evenly."""
    if len(counts) < 2:
        return {}
    busy = [t for n, t in zip(counts, busy_seconds, strict=True) if n]
    record: dict[str, object] = {"balance": round(sum(busy) / len(busy) / max(busy_seconds), 4)}
    if len(counts) <= _TOLD_RANKS:
        seconds = [round(t, 6) for t in busy_seconds]
        record["before"] = {"counts": list(counts), "busy_seconds": seconds}
    return record
