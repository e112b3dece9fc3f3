"""The loop: segments of batches, each a step; then all ranks look up, evaluate and save."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from hpc_train.checkpoint import Store
from hpc_train.errors import (
    CheckpointError,
    HpcTrainError,
    LostRanksError,
    NonFiniteError,
    PeerError,
)
from hpc_train.observe import Sink
from hpc_train.plan import Batch, Course, Every, Plan, Segment, Work, segments
from hpc_train.record import Stopwatch, phase
from hpc_train.stop import StopFlag
from hpc_train.strategies import Learner, Outcome, Tally
from hpc_train.tasks import Phase, sums_of
from hpc_train.tasks.task import is_due
from hpc_train.train.build import Parts
from hpc_train.train.central import central_of
from hpc_train.train.evaluation import evaluate
from hpc_train.train.place import Place
from hpc_train.train.records import Records
from hpc_train.train.saving import Saving
from hpc_train.train.shortage import compute_in_memory
from hpc_train.train.sums import check_metrics
from hpc_train.world import RankError, agree

if TYPE_CHECKING:
    from hpc_train.train.survival import Survival

logger = logging.getLogger(__name__)


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
        survival: goes on without ranks that die; None to fail with them.
        fresh: whether this rank takes the place of one that died, and has no state yet.
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
        survival: Survival | None = None,
        fresh: bool = False,
    ) -> None:
        self.parts = parts
        self.batch = batch
        self.step = step
        self.metrics: dict[str, dict[str, float]] = {}
        self._stop = stop
        self._course = course
        self._num_batches = num_batches
        self.saving = Saving(parts, store, self._tell, saved=batch if batch else -1)
        self._is_best = False  # whether the last evaluation was the best one
        self._clean = True  # whether the weights are as they were before the present batch
        self._foretold: Plan | None = None
        self._ending: str | None = None  # why a technique wants the run to end here
        self.place = Place(looked_up=batch if batch < num_batches else -1, fresh=fresh)
        self.records = Records(parts, sinks, stopwatch, self.place)
        self._survival = survival
        self._central = central_of(self, parts.strategy, survives=survival is not None)

    def run(self) -> str:
        """Train to the end; "done", or "preempted" if the run was asked to save and leave."""
        self.parts.model.train()
        try:
            while True:
                try:
                    if self.place.fresh and self._survival is not None:
                        self._survival.join(self)
                    return self._run()
                except Exception as error:
                    if self._survival is None or not self.parts.comm.is_lost(error):
                        raise
                    self._survival.go_on(self)
        except (RankError, NonFiniteError, LostRanksError) as error:
            self._rescue(error)
            raise
        finally:
            self.parts.comm.gate.leave()
            self.saving.close()
            if self._survival is not None:
                self._survival.close()

    def _run(self) -> str:
        if self.batch < self._num_batches:  # a run that is resumed may have ended early
            self._ending = self._ending or self.parts.techniques.ended()
        if self._ending is not None:  # or a rank was lost while it did
            self._settle()
            self._end_early()
            return "done"
        for segment in self._segments():
            self._train(segment)
            if self.place.leaving:
                self._settle()
                self._save(wait=True)
            if self.batch == segment.stop:
                self._look_up(segment)
                if self.place.leaving:  # with what techniques learned from the evaluation
                    self._save(wait=True)
            if self._ending is not None:
                self._end_early()
                break
            if self.place.leaving and self.batch < self._num_batches:
                return "preempted"
        return "done"

    def _segments(self) -> Iterator[Segment]:
        """What is left of the run, beginning with a look-up that was broken off."""
        evaluate = Every.parse(self.parts.config.run.evaluate)
        cut = partial(segments, self._course, evaluate=evaluate, save=self.saving.boundary)
        if self.place.looked_up < self.batch:
            if self.batch == self._num_batches:  # or an earlier part ended just before its result
                yield Segment(self.batch, self.batch, evaluate=True, save=True, last=True)
            elif (last := next(cut(self.batch - 1, self._num_batches))).stop == self.batch:
                yield replace(last, start=self.batch)
        yield from cut(self.batch, self._num_batches)

    def _foretell(self) -> None:
        """Let the loader read ahead, as the present plan says, to the end of the run."""
        self._foretold = self.parts.strategy.plan
        batches = self._course.batches(self.batch, self._num_batches)
        with phase("data", operation="foretell"):  # a part of what a change of plan costs
            self.parts.loaders["train"].follow(self.parts.strategy.foretell(batches))

    def _train(self, segment: Segment) -> None:
        """Train the batches of a segment, or to where the run was asked to leave."""
        if self.place.leaving:
            return
        if self._central is not None:
            self._central.train(segment)
            return
        for work in self.parts.strategy.work(self.batches(segment)):
            started = time.perf_counter()
            if self._foretold is not self.parts.strategy.plan:
                self._foretell()
            self.train_work(work)
            outcomes, self.place.outcomes = self.place.outcomes, []
            self.step += any(outcome.updated for outcome in outcomes)
            self.batch += 1
            flags = [outcome.total.flags for outcome in outcomes]
            self.place.leaving = any(told["preempted"] or told["stop"] for told in flags)
            self.tell_step(work, outcomes, time.perf_counter() - started)
            if self.saving.hear(outcomes):
                self.save_now()
            if self.place.leaving:
                return
            if any(told["join"] for told in flags):
                self.admit()

    def admit(self) -> None:
        """Let one that is ready take the place of a rank that died; all ranks meet."""
        assert self._survival is not None
        if self._central is not None:
            self._settle()
        self._survival.admit(self)

    def batches(self, segment: Segment) -> Iterator[Batch]:
        """What is left of a segment, and those before it that are done out of order."""
        return self._course.batches(self.batch - len(self.place.done), segment.stop)

    def arrive(self, batch: int, step: int, *, whole: bool) -> None:
        """Ranks that went at their own pace have met here; `whole`: the weights are those of it."""
        self.batch, self.step, self._clean = batch, step, whole
        self.place.done = []

    def train_work(self, work: Work) -> None:
        """This rank's part of one global batch, all phases that are not committed yet."""
        parts = self.parts
        samples = None
        self._clean = not self.place.outcomes
        self.place.techniques = parts.techniques.notes()
        parts.techniques.begin(work.batch)
        rate = parts.rates.factor(work.batch.number) * parts.techniques.rate_factor()
        for part, learner in self._due(work)[len(self.place.outcomes) :]:
            learner.set_rate(rate)
            parts.strategy.begin(learner)
            self.place.open = True
            error: Exception | None = None
            try:
                with parts.techniques.stepping():
                    samples = samples or parts.loaders["train"].get(work)
                    tally = compute_in_memory(parts, part, learner, samples, work)
                    check_metrics(tally, sums_of(parts.task))
                    learner.gather()
                    parts.techniques.gradients(learner, tally)
            except PeerError:  # the rank that failed says why
                tally = Tally(flags={"failed"})
            except Exception as raised:
                error, tally = raised, Tally(flags={"failed"})
            outcome = self._finish(learner, tally)
            if outcome is None:  # given away: a server tells what becomes of the batch
                return
            if outcome.total.flags["failed"]:
                agree(parts.comm, error)
            expected = self.commit(learner, outcome)
            if expected is not None:
                self.tell_event("overflow", expected, work)
            elif not outcome.finite:
                self._not_finite(work, outcome)
            self._clean = False
        self._clean = True

    def _due(self, work: Work) -> list[tuple[Phase, Learner]]:
        """The phases of the task that are run on a batch, and their learners."""
        pairs = zip(self.parts.task.phases, self.parts.learners, strict=True)
        return [(part, learner) for part, learner in pairs if is_due(part, work.batch.number)]

    def _finish(self, learner: Learner, tally: Tally) -> Outcome | None:
        """Reduce, agree, update; a rank that failed tells the others so."""
        tally.busy_seconds = self.records.take_busy()
        if self._stop.is_set:
            tally.flags.add("preempted")
        tally.flags |= self.saving.flags()
        if self._survival is not None and not self._stop.is_set:
            tally.flags |= self._survival.flags()
        self.saving.before_update()
        outcome = self.parts.strategy.finish(learner, tally)
        self.place.open = False
        return outcome

    def commit(self, learner: Learner, outcome: Outcome) -> str | None:
        """From here on the phase counts as done; a rank lost in between leaves no whole state.

        Returns:
            What a technique did about a gradient that it had expected not to be finite.
        """
        self.place.whole = False
        expected = None
        if outcome.updated:
            self.parts.techniques.updated(learner)
        elif not outcome.finite and not outcome.total.flags["non_finite"]:
            expected = self.parts.techniques.overflowed(learner)
        self.place.outcomes.append(outcome)
        self.place.techniques = self.parts.techniques.notes()
        self.place.whole = True
        return expected

    def tell_skipped(self, work: Work, outcome: Outcome) -> None:
        """Record an update that was left out, since loss or gradient were not finite."""
        self.tell_event("skipped", "", work)
        logger.warning("%s: update skipped", outcome.verdict(work.batch))

    def _not_finite(self, work: Work, outcome: Outcome) -> None:
        """Stop or go on when loss or gradient are not finite; no rank has updated."""
        if self.parts.config.optimizer.non_finite == "skip":
            self.tell_skipped(work, outcome)
            return
        error = outcome.problem(work.batch)
        error.agreed = True
        raise error

    def tell_step(
        self, work: Work, outcomes: list[Outcome], elapsed: float, **more: object
    ) -> None:
        """Record a step, and `more` that is to be said of it."""
        learners = [learner for _, learner in self._due(work)]
        self.records.step((self.step, self.batch), work, learners, outcomes, elapsed, **more)

    def _look_up(self, segment: Segment) -> None:
        """At the end of a segment: equal weights, evaluation, checkpoint."""
        self.place.techniques = self.parts.techniques.notes()
        self._settle()
        due = ["validation"] if segment.evaluate else []
        if segment.last:
            due.append("test")
        if segment.evaluate:
            self.parts.techniques.inspect(self.step)
        for kind in due:
            if kind in self.parts.loaders:
                self._evaluate(kind)
        if segment.save or self._is_best:
            self._save(wait=segment.last)
        self.place.looked_up = self.batch
        self.records.forget_time()

    def _end_early(self) -> None:
        """End the run as a technique asked: with the evaluation and the save of every end."""
        logger.info("the run ends at batch %d: %s", self.batch, self._ending)
        self.tell_event("ended", self._ending or "")
        if self.batch < self._num_batches:
            if "test" in self.parts.loaders:
                self._evaluate("test")
            self._save(wait=True)

    def _evaluate(self, kind: str) -> None:
        techniques = self.parts.techniques
        self.saving.before_update()  # they may put other weights in the place of those
        with techniques.evaluating(final=kind == "test"):
            metrics = evaluate(self.parts, kind)
            if kind == "validation":
                self._ending = techniques.evaluated(self.batch, metrics)
        self.metrics[kind] = metrics
        if kind == "validation":
            self._is_best = self.saving.evaluated(self.batch, metrics)
        here = self._course.cursor(self.batch)
        self._tell(
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
        self.saving.save(self._course.cursor(self.batch), self.batch, self.step, wait=wait)

    def _settle(self) -> None:
        """Let all ranks hold equal weights; a copy that is being made of them comes first."""
        self.saving.before_update()
        self.parts.strategy.settle()
        if self._central is not None:
            self._central.share()

    def save_now(self) -> None:
        """Save in the middle of a segment."""
        self._settle()
        self._save(wait=False)
        self.records.forget_time()

    def _rescue(self, error: HpcTrainError) -> None:
        """Before leaving with an error: save the state before the broken batch, if it is whole."""
        self.saving.rescue()
        if not self._clean or not self.place.whole or self.batch == 0:
            return
        with suppress(RankError, CheckpointError):
            self._settle()
            self._save(wait=True)

    def rejoin(self) -> None:
        """After ranks were lost: leave what they took part in."""
        self.saving.abandon()
        self.saving.before_update()  # a thread may still copy what is about to change
        if self._central is not None:
            self._central.rejoin()

    def resume(self, batch: int, step: int, sinks: Sequence[Sink]) -> None:
        """After ranks were lost: the position that the survivors agreed on, and who hears of it."""
        self.batch, self.step, self.records.sinks = batch, step, sinks
        self._foretold = None
        self._clean = not self.place.outcomes and not self.place.done
        self._is_best = False
        if self.place.looked_up < batch:
            self._ending = None
        self.records.take_busy()
        self.records.forget_time()

    def document(self) -> dict[str, Any]:
        """What all ranks know alike beside the state, as JSON: for one that comes later."""
        return {
            "metrics": self.metrics,
            "figures": self.records.figures.document(),
            "saving": self.saving.document(),
        }

    def take_up(self, document: Mapping[str, Any]) -> None:
        """Know what another rank's `document` says."""
        self.metrics = document["metrics"]
        self.records.figures.take_up(document["figures"])
        self.saving.take_up(document["saving"])

    def tell_event(self, event: str, text: str, work: Work | None = None) -> None:
        """Let the sinks hear of something that happened, in a batch where `work` is given."""
        self.records.event((self.step, self.batch), event, text, work)

    def _tell(self, record: dict[str, object]) -> None:
        self.records.tell(record, self.step, self.batch)
