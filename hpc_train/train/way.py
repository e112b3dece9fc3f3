"""The way before a run: where it begins and where it ends, from the start or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpc_train.checkpoint import Store, newest
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.observe import read_result
from hpc_train.plan import Course, Cursor
from hpc_train.train import state
from hpc_train.train.build import Parts
from hpc_train.world import on_coordinator, together


@dataclass(frozen=True)
class Way:
    """What lies before a run: batches [batch, end) of a course, after `step` updates.

    `epochs` is its length in epochs; None if it is given in batches.
    """

    course: Course
    batch: int
    step: int
    end: int
    epochs: int | None

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Way:
        """The way that a `document` tells."""
        course = dict(document["course"])
        course["start"] = Cursor(**course["start"])
        return cls(**{**document, "course": Course(**course)})


def _way(parts: Parts, course: Course, batch: int, step: int) -> Way:
    run = parts.config.run
    epochs = run.epochs if run.steps is None else None
    end = run.steps or course.end_of(epochs or 1)
    # the curve spans the whole run, whatever batch sizes its parts had
    parts.rates = replace(parts.rates, num_batches=end)
    return Way(course, batch, step, end, epochs)


def fresh(parts: Parts) -> Way:
    """The way of a run that begins at its beginning."""
    return _way(parts, parts.survey.course, 0, 0)


def resumed(parts: Parts, store: Store, folder: Path) -> Way:
    """The way from the newest valid checkpoint on, which all ranks load.

    Raises:
        ConfigError: if the run is complete.
    """
    comm = parts.comm
    saved = newest(store, comm)
    cursor, batch, step = together(comm, lambda: state.restore(parts, saved))
    course = parts.survey.course
    way = _way(parts, Course(course.num_samples, course.batch_size, cursor, batch), batch, step)
    reason = parts.techniques.ended()
    at_end = reason is not None or batch == way.end
    # one that ended after its last batch, and before its result was written, is not complete
    if batch > way.end or (at_end and on_coordinator(comm, lambda: is_done(folder))):
        if reason is not None:
            raise agreed(
                ConfigError(
                    f"the run is complete already: it ended at batch {batch}, since {reason}",
                    where=str(folder),
                    hint="go on beyond it with a larger early_stopping.patience",
                )
            )
        raise agreed(
            ConfigError(
                f"the run is complete already ({batch} of {way.end} batches)",
                where=str(folder),
                hint=f"go on beyond it with {'run.epochs' if way.epochs else 'run.steps'}=N",
            )
        )
    return way


def is_done(folder: Path) -> bool:
    """Whether a run directory holds the result of a complete run."""
    result = read_result(folder)
    return result is not None and result.status == "done"


def is_unsaved(store: Store, folder: Path) -> bool:
    """Whether a run ended before it saved anything: to go on with it is to begin again."""
    return (folder / "config.toml").is_file() and not store.candidates()


def agreed(error: HpcTrainError) -> HpcTrainError:
    """The same error, marked as one that every rank raises here."""
    error.agreed = True
    return error
