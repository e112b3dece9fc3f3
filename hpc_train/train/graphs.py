"""CUDA graphs: forward and backward of a micro-batch, recorded once and played back.

    micro-batches 1 to 3    run as ever, on a stream beside: torch must be warm to be recorded
    micro-batch 4           recorded, which computes nothing; then played
    micro-batches 5, ...    copied to where the recorded one lay; played

Launching the kernels of a small network one by one takes Python longer than a GPU needs for them;
played back, all are launched at once. What is recorded are kernels and addresses alone: whatever
Python decides from one micro-batch to the next would stay as it was. So tasks say whether their
losses are made on the device from the batch alone, and techniques that decide inside are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

import torch

from hpc_train.config import Config
from hpc_train.errors import ConfigError, HpcTrainError, SetupError
from hpc_train.tasks import Task, TensorBatch

WHERE = "device.cuda_graphs"
WARM_UP = 3  # micro-batches of a shape before it is recorded
MOST_SHAPES = 4  # each keeps the memory of its activations

Found = dict[str, torch.Tensor]
Act = Callable[[TensorBatch], Found]
T = TypeVar("T")


class Machine(Protocol):
    """What can record."""

    def beside(self, act: Callable[[], T]) -> T:
        """Run `act` as it will run when it is recorded."""

    def record(self, act: Callable[[], Found]) -> tuple[Callable[[], None], Found]:
        """Record what `act` does, without doing it: what does it, and where its results will be."""


class Cuda:
    """A GPU of this process."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def beside(self, act: Callable[[], T]) -> T:
        """On a stream of its own, between what was launched before and what comes after."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            found = act()
        current.wait_stream(self._stream)
        return found

    def record(self, act: Callable[[], Found]) -> tuple[Callable[[], None], Found]:
        """As a graph; other threads may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            found = act()
        return graph.replay, found


@dataclass(frozen=True)
class _Recorded:
    """A recorded micro-batch: where it lies, where its results are, what plays it."""

    batch: TensorBatch
    found: Found
    play: Callable[[], None]


class Graphs:
    """What is recorded of a run.

    Args:
        machine: records.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._seen: dict[object, int] = {}
        self._recorded: dict[object, _Recorded] = {}

    def run(self, phase: str, batch: TensorBatch, act: Act) -> Found:
        """What `act` gives for `batch`, played back where one of this shape was recorded.

        Args:
            phase: of the task; each has recordings of its own.
            batch: not mixed with others.
            act: forward and backward, the same for all micro-batches of the phase; gradients are
                added to where they always lie.

        Raises:
            HpcTrainError: if it cannot be recorded.
        """
        key = (phase, *((tensor.shape, tensor.dtype) for tensor in _tensors(batch)))
        if key not in self._recorded:
            seen = self._seen[key] = self._seen.get(key, 0) + 1
            if seen <= WARM_UP or len(self._recorded) == MOST_SHAPES:
                return self._machine.beside(lambda: act(batch))
            self._recorded[key] = self._record(batch, act)
        recorded = self._recorded[key]
        for place, tensor in zip(_tensors(recorded.batch), _tensors(batch), strict=True):
            place.copy_(tensor)
        recorded.play()
        # the next one is played into the same memory
        return {name: value.clone() for name, value in recorded.found.items()}

    def forget(self) -> None:
        """Free what recordings hold."""
        self._recorded.clear()
        self._seen.clear()

    def _record(self, batch: TensorBatch, act: Act) -> _Recorded:
        held = replace(
            batch,
            inputs={name: tensor.clone() for name, tensor in batch.inputs.items()},
            targets={name: tensor.clone() for name, tensor in batch.targets.items()},
        )
        try:
            play, found = self._machine.record(lambda: act(held))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise HpcTrainError(
                f"forward and backward cannot be recorded: {str(error).splitlines()[0]}",
                where=WHERE,
                hint="the network or the task waits for the device (.item(), .cpu()), or decides "
                f"by values; set {WHERE}=false",
            ) from error
        return _Recorded(held, found, play)


def _tensors(batch: TensorBatch) -> Iterator[torch.Tensor]:
    """Inputs and targets, in one order."""
    for fields in (batch.inputs, batch.targets):
        for name in sorted(fields):
            yield fields[name]


def make_graphs(config: Config, task: Task, device: torch.device) -> Graphs | None:
    """What records; None if it is not asked for.

    Raises:
        SetupError: if the device is no GPU.
        ConfigError: naming what cannot be recorded.
    """
    if not config.device.cuda_graphs:
        return None
    if device.type != "cuda":
        raise SetupError(
            f"CUDA graphs need a GPU (device: {device})",
            where=WHERE,
            hint=f"ask for GPUs, or set {WHERE}=false",
        )
    check(config, task)
    return Graphs(Cuda(device))


def check(config: Config, task: Task) -> None:
    """Check that all of a micro-batch can be recorded.

    Raises:
        ConfigError: naming what cannot be.
    """
    for name, is_asked_for in _unfit(config).items():
        if is_asked_for:
            raise ConfigError(
                f"{name} decides or waits inside a step, which cannot be recorded",
                where=WHERE,
                hint=f"leave it out, or set {WHERE}=false",
            )
    for phase in task.phases:
        if not getattr(phase, "recordable", False):
            raise ConfigError(
                f'phase {phase.name} of task.name = "{config.task.name}" does not say that its '
                "losses can be recorded",
                where=WHERE,
                hint="say recordable = True in a task of your own whose losses are made on the "
                f"device from the batch alone, or set {WHERE}=false",
            )


def _unfit(config: Config) -> Mapping[str, bool]:
    """What does not go with recordings, and whether it is asked for."""
    regularization = config.regularization
    return {
        "device.compile": config.device.compile,
        "device.activation_checkpointing": config.device.activation_checkpointing != "none",
        "model.sync_batchnorm": bool(config.model.sync_batchnorm),
        "regularization.dropout": regularization.dropout is not None,
        "regularization.mixup": regularization.mixup is not None,
        "regularization.cutmix": regularization.cutmix is not None,
        "compress.quantize": config.compress.quantize != "none",
        "precision.autocast = float16": config.precision.autocast == "float16",
        "transfer.unfreeze": bool(config.transfer.unfreeze),
        "comm.overlap": config.comm.overlap is True,
    }
