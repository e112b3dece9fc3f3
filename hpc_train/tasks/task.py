"""The contract of a task, small enough to write one's own in a few lines.

class Task:   phases = [Phase, ...]    in the order in which they are run on each batch
class Phase:  name, parameters(model), losses(model, batch) -> Losses
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import nn

from hpc_train.errors import HpcTrainError


@dataclass(frozen=True)
class Mixed:
    """What the inputs of a batch were mixed with.

    Attributes:
        targets: those of the partners, like the batch's own.
        share: how much of each input is its own, in [0, 1].
    """

    targets: Mapping[str, torch.Tensor]
    share: float


@dataclass(frozen=True)
class TensorBatch:
    """Samples on the device.

    Attributes:
        inputs: one tensor per input field, shape (n, *field shape).
        targets: one tensor per target field, shape (n, *field shape).
        ids: which samples they are, on the CPU, int64, shape (n,).
        epoch: in which epoch they are trained; with the ids it keys what is random about them.
        partner: as many samples to mix them with; None if they are not to be mixed.
        mixed: what they were mixed with; see `tasks.mixing`.
    """

    inputs: Mapping[str, torch.Tensor]
    targets: Mapping[str, torch.Tensor]
    ids: torch.Tensor
    epoch: int = 0
    partner: TensorBatch | None = None
    mixed: Mixed | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def target(self) -> torch.Tensor:
        """The only target."""
        (only,) = self.targets.values()
        return only

    def through(self, model: nn.Module) -> torch.Tensor:
        """What the model makes of the inputs: of the only one, or of all as a dictionary."""
        inputs = self.inputs
        out = model(next(iter(inputs.values())) if len(inputs) == 1 else dict(inputs))
        if not isinstance(out, torch.Tensor):
            raise HpcTrainError(
                f"this task needs a model that returns one tensor (returned: {type(out).__name__})",
                hint="write a task of your own: task.name = 'my_package.module:Class'",
            )
        return out


@dataclass(frozen=True)
class Losses:
    """What a phase says of a batch of n samples.

    Attributes:
        values: loss of each sample, shape (n,).
        weights: weight of each sample, shape (n,), >= 0; None for 1 each. A sample of sequences
            that counts tokens has the number of its tokens.
        sums: metrics as sums of weight times value over the samples, each a scalar or of shape
            (k,); they are reported divided by the sum of weights, see `Task`.
    """

    values: torch.Tensor
    weights: torch.Tensor | None = None
    sums: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Phase(Protocol):
    """One player of a task: which parameters it trains, and for which losses.

    A phase with an attribute `every` above 1 is run on each so many-th batch only. One whose losses
    are made on the device from inputs and targets alone may say `recordable = True`
    (`device.cuda_graphs`).
    """

    name: str

    def parameters(self, model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        """The named parameters that this phase trains."""

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """Per-sample losses, weights and metric sums.

        Weights are only read here: a checkpoint may be copying them (`checkpoint.asynchronous`).
        """


def is_due(phase: Phase, number: int) -> bool:
    """Whether `phase` is run on global batch `number`: on the last of each `every`."""
    every: int = getattr(phase, "every", 1)
    return (number + 1) % every == 0


class Task(Protocol):
    """What is learned.

    A task whose metrics are no means has two more attributes: `sums`, the names of the sums that
    its losses hold (a sum of shape (k,) called s stands for s_0 .. s_k-1), and
    `summarize(weight, loss, sums)`, a pure function from the totals over all samples to metrics.
    """

    @property
    def phases(self) -> Sequence[Phase]:
        """Run one after another on each batch; the first one's losses are the evaluation's."""

    @property
    def metrics(self) -> Sequence[str]:
        """Names of what is reported: the sums of the losses, unless there are `sums`."""


class Supervised:
    """A task with one phase that trains all parameters; subclasses give `losses`."""

    name = "supervised"
    metrics: Sequence[str] = ()

    @property
    def phases(self) -> Sequence[Phase]:
        """Itself, the only phase."""
        return [self]

    def parameters(self, model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        """All parameters."""
        return model.named_parameters()

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """Per-sample losses, weights and metric sums."""
        raise TypeError(f"{type(self).__name__} must define losses(model, batch)")

    def predict(self, outputs: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """What `hpc-train predict` writes of outputs of shape (n, ...), by name of the dataset."""
        return {"output": outputs}

    def combine(self, outputs: torch.Tensor) -> torch.Tensor:
        """The prediction of an ensemble from those of its members, (members, n, ...): the mean."""
        return outputs.mean(0)


def sums_of(task: Task) -> Sequence[str]:
    """Names of the sums that the losses of a task hold, the same for every batch."""
    names: Sequence[str] = getattr(task, "sums", task.metrics)
    return names


def summarized(
    task: Task, weight: float, loss: float, sums: Mapping[str, float]
) -> dict[str, float]:
    """The metrics of a task: means over the weights, unless it says otherwise.

    Args:
        task: what is learned.
        weight, loss, sums: totals over all samples, of their weights, weight times loss, and of
            each of `sums_of(task)`.
    """
    summarize = getattr(task, "summarize", None)
    if summarize is not None:
        found: dict[str, float] = summarize(weight, loss, sums)
        return found
    return {n: s / weight if weight else float("nan") for n, s in sums.items()}


def check_losses(losses: Losses, size: int) -> None:
    """Check the shapes that the contract asks for.

    Raises:
        HpcTrainError: if losses or weights are not of shape (size,), or a sum has two axes.
    """
    if not isinstance(losses, Losses):
        raise HpcTrainError(
            f"losses of a task must be a Losses object (returned: {type(losses).__name__})",
            hint="return hpc_train.tasks.Losses(values)",
        )
    for what, tensor in (("losses", losses.values), ("weights", losses.weights)):
        if tensor is not None and tensor.shape != (size,):
            raise HpcTrainError(
                f"{what} of a task must have shape ({size},), one entry per sample "
                f"(shape: {tuple(tensor.shape)})",
                hint="use reduction='none', and average over all axes but the first",
            )
    for name, value in losses.sums.items():
        if not isinstance(value, torch.Tensor) or value.dim() > 1:
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise HpcTrainError(
                f"sums of a task must be tensors of one number, or of one axis ({name}: {shape})",
                hint="sum over the samples of the batch, by .sum()",
            )
