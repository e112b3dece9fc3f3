"""What a run tells of itself: records of steps, evaluations and events, for whoever listens."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_train.observe import Sink
from hpc_train.plan import Work
from hpc_train.quota import cpu_quota
from hpc_train.record import Stopwatch
from hpc_train.strategies import Learner, Outcome
from hpc_train.train.build import Parts
from hpc_train.train.device import peak_bytes
from hpc_train.train.effort import Effort
from hpc_train.train.evaluation import measured
from hpc_train.train.figures import Figures, step_record
from hpc_train.train.place import Place


class Records:
    """Tells sinks what happens, on rank 0; every rank keeps the last steps, for a rank 0 to come.

    Args:
        parts: the run.
        sinks: who hears of steps and evaluations; none but on rank 0.
        stopwatch: times the phases of this rank.
        place: where the run is; the last records are kept there.

    Attributes:
        sinks: as above; others after rank 0 was lost.
        figures: what the steps add up to.
        busy_seconds: what this rank needed for the last step, waiting left out.
    """

    def __init__(
        self, parts: Parts, sinks: Sequence[Sink], stopwatch: Stopwatch, place: Place
    ) -> None:
        self.sinks = sinks
        self.figures = Figures(parts.comm.num_members)
        self.busy_seconds = 0.0
        self._parts = parts
        self._stopwatch = stopwatch
        self._effort = Effort(None if parts.comm.gate.cpus is None else cpu_quota())
        self._place = place

    def take_busy(self) -> float:
        """The seconds of the last step, told once."""
        taken, self.busy_seconds = self.busy_seconds, 0.0
        return taken

    def forget_time(self) -> None:
        """Leave out of the next step's seconds what was done since the last one."""
        self._stopwatch.take()
        self._parts.comm.gate.take_late_seconds()

    def tell(self, record: dict[str, object], step: int, batch: int) -> None:
        """Tell all sinks what happened after `step` updates, in `batch` if it names no other."""
        record.setdefault("step", step)
        record.setdefault("batch", batch)
        if record["kind"] == "step":
            self._place.recent.append(record)
            self._place.told = batch if self.sinks else -1
        for sink in self.sinks:
            sink.record(record)

    def step(
        self,
        at: tuple[int, int],
        work: Work,
        learners: Sequence[Learner],
        outcomes: list[Outcome],
        elapsed: float,
        **more: object,
    ) -> None:
        """Tell of a step, and `more` that is to be said of it.

        Args:
            at: updates and batches after it.
            work: its batch.
            learners: those that were due in it.
            outcomes: what became of each of its phases.
            elapsed: seconds that it took.
            more: further keys of the record.
        """
        parts = self._parts
        watch = self._stopwatch
        seconds = watch.take()
        late = parts.comm.gate.take_late_seconds()
        elapsed_seconds, cpu_seconds = watch.elapsed_seconds, watch.cpu_seconds
        self.busy_seconds = self._effort.busy(seconds, elapsed_seconds, cpu_seconds, late)
        total, before = outcomes[0].total, outcomes[0].before
        if before:
            self.figures.add_up(parts.comm.members, before, total.busy_seconds)
        self.figures.add(work.batch.size, elapsed, total.skipped)
        told = step_record(outcomes, learners, work.batch.size, elapsed)
        told["metrics"] = {**measured(parts.task, total), **parts.techniques.report()}
        told["seconds"] = {name: round(value, 6) for name, value in seconds.items()}
        told["peak_memory_bytes"] = peak_bytes(parts.device)
        told["epoch"] = work.batch.epoch
        self.tell({**told, "lr": parts.learners[0].rate, **more}, *at)

    def event(self, at: tuple[int, int], event: str, text: str, work: Work | None = None) -> None:
        """Tell of something that happened, in a batch where `work` is given."""
        told: dict[str, object] = {"kind": "event", "event": event, "text": text}
        if work is not None:
            told["epoch"] = work.batch.epoch
        self.tell(told, *at)
