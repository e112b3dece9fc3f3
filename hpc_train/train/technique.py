"""Techniques: what a run does beside the plain step, each off by default, in a file of its own.

    for each global batch:   begin, rate_factor          of the batch
        each phase:          transform                   each micro-batch, on the device
                             loss_factor                 of the losses, in backward
                             gradients                   before they are reduced
                             updated or overflowed       after the update, or in place of it
        a whole step:        stepping                    around forward and backward
        record of a step:    report
    at the end of a segment: evaluating, inspect         around an evaluation; whenever one is due
                             evaluated                   after it; may end the run
    at the end of the run:   finish                      what stays in the model
    in a checkpoint:         tensors, notes -> restore

All ranks call the same methods at the same points. What a method does not override costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from hpc_train.plan import Batch, Work
from hpc_train.strategies import Learner, Tally
from hpc_train.tasks import TensorBatch

FINAL = "final/"


class Technique:
    """One technique; subclasses override the points at which they have something to do.

    Attributes:
        name: names its state in a checkpoint.
        needs_everyone: whether ranks without samples must go through the model, too.
    """

    name = "technique"
    needs_everyone = False

    def begin(self, batch: Batch) -> None:
        """Before a global batch, the same on all ranks."""

    def rate_factor(self) -> float:
        """Factor on the learning rate of the present batch, the same on all ranks."""
        return 1.0

    def transform(self, batch: TensorBatch, work: Work) -> TensorBatch:
        """A micro-batch as the model gets it; a function of (seed, epoch, ids) alone."""
        return batch

    def loss_factor(self, phase: str) -> float:
        """Factor on the losses of a phase before backward; `gradients` must take it back."""
        return 1.0

    def gradients(self, learner: Learner, tally: Tally) -> None:
        """After backward, before the reduction: add this rank's part to `learner`'s gradients.

        They are sums of weight x loss: what is added to the mean loss of all ranks is added here
        times `tally.weight`, so that it does not depend on how the batch is split.
        """

    def updated(self, learner: Learner) -> None:
        """After an update that took place; parameters are changed by `arena.write` alone."""

    def overflowed(self, learner: Learner) -> str | None:
        """After an update that was skipped: the loss was finite, the gradient of all ranks not.

        Returns:
            What it did about it, so that the run goes on; None if it had not expected it.
        """
        return None

    def stepping(self) -> AbstractContextManager[None]:
        """Around all of a phase that may fail on one rank, for what talks to others inside it."""
        return nullcontext()

    def evaluating(self, *, final: bool) -> AbstractContextManager[None]:
        """Around each evaluation, such as with other weights; `final`: of the finished model."""
        return nullcontext()

    def inspect(self, step: int) -> None:
        """Whenever an evaluation is due, also without validation data, inside `evaluating`.

        Not collective: a rank may do nothing, and what fails must warn.
        """

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """After the evaluation of the validation data, with metrics that all ranks hold.

        The model still holds the weights that were evaluated.

        Returns:
            Why the run shall end here; None to go on.
        """
        return None

    def ended(self) -> str | None:
        """Why a run that is resumed was over already, by what was restored; None if it was not."""
        return None

    def finish(self) -> None:
        """At the very end, when all is saved: leave the final weights in the model."""

    def report(self) -> Mapping[str, float]:
        """What the record of a step shall tell beside the metrics of the task."""
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Its tensors in a checkpoint, by name; written by `updated` and `evaluated` alone.

        Those whose names begin with `FINAL` are weights that stand for the model's of that name,
        if the notes have a true `is_final`.
        """
        return {}

    def notes(self) -> dict[str, Any]:
        """What else it must remember, as JSON."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `notes` told; both are empty if it was off before."""


class Techniques:
    """All techniques of a run, in the order in which they are applied."""

    def __init__(self, members: Sequence[Technique] = ()) -> None:
        self.members = tuple(members)
        self.needs_everyone = any(member.needs_everyone for member in members)
        self._begin = self._those("begin")
        self._factors = self._those("rate_factor")
        self._transforms = self._those("transform")
        self._loss_factors = self._those("loss_factor")
        self._gradients = self._those("gradients")
        self._updated = self._those("updated")
        self._overflowed = self._those("overflowed")
        self._stepping = self._those("stepping")
        self._inspect = self._those("inspect")
        self._report = self._those("report")
        self._evaluated = self._those("evaluated")

    def _those(self, method: str) -> list[Callable[..., Any]]:
        """The bound methods of those that override `method`."""
        plain = getattr(Technique, method)
        return [getattr(m, method) for m in self.members if getattr(type(m), method) is not plain]

    def begin(self, batch: Batch) -> None:
        """Before a global batch."""
        for begin in self._begin:
            begin(batch)

    def rate_factor(self) -> float:
        """The product of all factors on the learning rate."""
        factor = 1.0
        for rate_factor in self._factors:
            factor *= rate_factor()
        return factor

    def transform(self, batch: TensorBatch, work: Work) -> TensorBatch:
        """A micro-batch as the model gets it."""
        for transform in self._transforms:
            batch = transform(batch, work)
        return batch

    def loss_factor(self, phase: str) -> float:
        """The product of all factors on the losses of a phase."""
        factor = 1.0
        for loss_factor in self._loss_factors:
            factor *= loss_factor(phase)
        return factor

    @property
    def change_gradients(self) -> bool:
        """Whether some of them have something to do in `gradients`."""
        return bool(self._gradients)

    def gradients(self, learner: Learner, tally: Tally) -> None:
        """After backward, before the reduction."""
        for gradients in self._gradients:
            gradients(learner, tally)

    def updated(self, learner: Learner) -> None:
        """After an update that took place."""
        for updated in self._updated:
            updated(learner)

    def overflowed(self, learner: Learner) -> str | None:
        """Tell all of them of a skipped update; what one did, None if nobody expected it."""
        told = [overflowed(learner) for overflowed in self._overflowed]
        return next((text for text in told if text is not None), None)

    def stepping(self) -> AbstractContextManager[None]:
        """Around a phase of a step."""
        return self._around() if self._stepping else nullcontext()

    @contextmanager
    def _around(self) -> Iterator[None]:
        with ExitStack() as stack:
            for stepping in self._stepping:
                stack.enter_context(stepping())
            yield

    @contextmanager
    def evaluating(self, *, final: bool = False) -> Iterator[None]:
        """Around each evaluation."""
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(member.evaluating(final=final))
            yield

    def inspect(self, step: int) -> None:
        """Whenever an evaluation is due."""
        if self._inspect:
            with self.evaluating(final=False):
                for inspect in self._inspect:
                    inspect(step)

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """Tell all of them what was measured; why the run shall end here, if one wants so."""
        reasons = [evaluated(batch, metrics) for evaluated in self._evaluated]
        return next((reason for reason in reasons if reason is not None), None)

    @property
    def listen(self) -> bool:
        """Whether an evaluation changes what some of them remember."""
        return bool(self._evaluated)

    def ended(self) -> str | None:
        """Why a run that is resumed was over already, if one says so."""
        return next((reason for m in self.members if (reason := m.ended()) is not None), None)

    def finish(self) -> None:
        """At the very end; the last technique has the last word."""
        for member in self.members:
            member.finish()

    def report(self) -> dict[str, float]:
        """What all of them tell of a step."""
        return {name: value for report in self._report for name, value in report().items()}

    def tensors(self) -> dict[str, torch.Tensor]:
        """The tensors of all, as `<technique>/<name>`."""
        return {f"{m.name}/{n}": t for m in self.members for n, t in m.tensors().items()}

    def notes(self) -> dict[str, Any]:
        """The notes of all that have some, by technique."""
        return {m.name: notes for m in self.members if (notes := m.notes())}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Give each what it told."""
        for member in self.members:
            prefix = f"{member.name}/"
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            member.restore(own, notes.get(member.name, {}))
