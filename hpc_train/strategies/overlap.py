"""Reduction behind the backward pass: a bucket is summed as soon as its gradients are complete.

    main      begin   forward   last backward: hooks ........ reduce: the rest    agree
                                  b0 ready  b2 ready  b1 ready  wait
    thread                        sum b0              sum b1  sum b2

All ranks sum their buckets in one order, that in which they became ready on one of them in the
first step; one that is ready before its turn waits for it. Only the last backward pass of a step
counts, since earlier ones add to the same gradients. What had no gradient, or no backward pass at
all (a rank without samples, one that failed), is zero, and goes out when the step is finished: so
every rank sums every bucket in every step, whatever happens in it.

With "auto" some steps are made with overlap and some without, by turns, and the faster way is kept.
Method: S. Li et al., "PyTorch distributed: Experiences on accelerating data parallel training",
VLDB 2020, section 3.2.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

from hpc_train.comm import Background, Comm, duplicate
from hpc_train.errors import HpcTrainError
from hpc_train.strategies.arena import Arena
from hpc_train.strategies.reduction import Debts, Part, Reduction

logger = logging.getLogger(__name__)

_LEARNING_STEPS = 3  # in so many of them the order may be learned
_TRIALS = 8  # steps of each kind before "auto" decides
_ENOUGH = 0.98  # seconds with overlap, relative to those without


class Line:
    """The thread of a rank that sums, and the communicators on which it alone calls MPI.

    Collective to make.

    Args:
        comm: the ranks.

    Attributes:
        comm: the same ranks, for the thread.
        thread: what sums.
    """

    def __init__(self, comm: Comm) -> None:
        self.comm = duplicate(comm)
        self.thread = Background()

    def close(self) -> None:
        """End the thread.

        Raises:
            HpcTrainError: if it still waits for ranks that are lost.
        """
        if not self.thread.close():
            raise HpcTrainError("the communication thread still waits for a rank that is lost")


class Overlapped:
    """A reduction whose parts are summed by a thread, in the order in which they become ready.

    Args:
        comm: the ranks.
        line: what sums; `inner` was made with its communicators.
        inner: what is summed, in parts.
        is_trial: whether to find out if it pays; else it is taken for granted.
    """

    def __init__(self, comm: Comm, line: Line, inner: Reduction, *, is_trial: bool) -> None:
        self._comm = comm
        self._line = line
        self._inner = inner
        self._is_trial = is_trial
        self._parts = inner.parts
        self._order = list(range(len(self._parts)))
        self._learning = _LEARNING_STEPS
        self._steps = 0
        self._seconds: list[list[float]] = [[], []]  # without overlap, with it
        self._pays = True
        self._started = time.perf_counter()
        self._handles = [
            _hook(parameter, partial(self._gradient, number, name, view))
            for number, part in enumerate(self._parts)
            for name, parameter, view in _members(part.arena, part)
        ]
        self._reset()

    @property
    def parts(self) -> list[Part]:
        """What is summed."""
        return self._parts

    def _reset(self) -> None:
        self._is_open = False
        self._missing = [set(part.names) for part in self._parts]
        self._ready = [False] * len(self._parts)
        self._seen: list[int] = []  # parts in the order in which they became ready
        self._put = 0  # how many of the order have gone out

    def begin(self, samples: int) -> None:
        """Get ready for the gradients of a batch of so many samples."""
        self._inner.begin(samples)
        self._reset()
        self._started = time.perf_counter()

    def begin_again(self) -> None:
        """Forget the gradients since `begin`.

        Raises:
            HpcTrainError: if some of them have gone out.
        """
        if self._put:
            raise HpcTrainError(
                "no memory for a micro-batch, and the step cannot be tried again, since some of "
                "its gradients have been summed",
                where="comm.overlap",
                hint="set comm.overlap = false, or a smaller data.micro_batch_size",
            )
        self._reset()

    def release(self) -> None:
        """The next backward pass is the last one of this step: its gradients are final."""
        self._is_open = self._pays and not (self._in_trial and self._steps % 2)

    @property
    def _in_trial(self) -> bool:
        return self._is_trial and self._learning <= 0

    def _gradient(
        self, number: int, name: str, view: torch.Tensor, parameter: torch.Tensor
    ) -> None:
        """Called by autograd when it has added to the gradient of a parameter."""
        if not self._is_open:
            return
        if name not in self._missing[number]:
            raise HpcTrainError(
                f"a backward pass must add to each gradient once, to be overlapped ({name}: twice)",
                where="comm.overlap",
                hint="set comm.overlap = false",
            )
        if parameter.grad is not None and parameter.grad.data_ptr() != view.data_ptr():
            view.copy_(parameter.grad)  # autograd put another tensor in its place
            parameter.grad = view.detach()
        self._missing[number].remove(name)
        if not self._missing[number]:
            self._seen.append(number)
            self._ready[number] = True
            self._advance()

    def _advance(self) -> None:
        """Hand the thread what is ready, up to the first in the order that is not."""
        while self._put < len(self._order) and self._ready[self._order[self._put]]:
            self._line.thread.put(self._parts[self._order[self._put]].operation)
            self._put += 1

    def reduce(self) -> None:
        """Sum what is left, and wait for all of it."""
        self._is_open = False
        self._ready = [True] * len(self._parts)
        self._advance()
        self._line.thread.wait()
        if self._learning > 0:
            self._learn()
        elif self._in_trial:
            self._try()
        self._steps += 1

    def _learn(self) -> None:
        """Agree on an order: that of the first rank whose parts became ready by themselves."""
        self._learning -= 1
        told = self._comm.gather(self._seen)
        order = next((list(map(int, seen)) for seen in told if seen), None)
        if order is not None:
            self._order = order + [n for n in range(len(self._parts)) if n not in order]
            self._learning = 0
            self._steps = -1

    def _try(self) -> None:
        """Time a step of the trial; after the last one, agree on what is faster."""
        self._seconds[self._steps % 2 == 0].append(time.perf_counter() - self._started)
        if min(map(len, self._seconds)) < _TRIALS:
            return
        told = np.array(self._comm.gather([some[:_TRIALS] for some in self._seconds]))
        plain, fast = (statistics.median(row) for row in told.max(axis=0))  # of the slowest ranks
        self._is_trial = False
        self._pays = fast < _ENOUGH * plain
        if self._comm.world.is_coordinator:
            logger.info(
                "comm.overlap auto: %s (%.2f ms a step with it, %.2f ms without)",
                "on" if self._pays else "off",
                1e3 * fast,
                1e3 * plain,
            )

    def commit(self) -> None:
        """The step of the last sum counts."""
        self._inner.commit()

    def settle(self) -> None:
        """Get what belongs to a checkpoint; collective."""
        self._inner.settle()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What belongs to a checkpoint, by name; the same on all ranks when settled."""
        return self._inner.tensors()

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` told, on every rank."""
        self._inner.restore(tensors)

    def debts(self) -> Debts:
        """What this rank would have to tell those who go on with other ranks."""
        return self._inner.debts()

    def inherit(self, debts: Debts) -> None:
        """Take up what each rank knew of a reduction by other ranks before; collective."""
        self._inner.inherit(debts)

    def close(self) -> None:
        """Hear no more of gradients, and end the thread."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._line.close()


def _hook(parameter: torch.nn.Parameter, function: Callable[[torch.Tensor], None]) -> Any:
    """Let autograd call `function` when it has added to a gradient; gives what removes it."""
    return parameter.register_post_accumulate_grad_hook(function)  # type: ignore[no-untyped-call]


def _members(arena: Arena, part: Part) -> list[tuple[str, torch.nn.Parameter, torch.Tensor]]:
    """(name, parameter, its part of the arena's gradient) for those in a part."""
    named = dict(arena.named)
    return [(name, named[name], arena.view(arena.grad, name)) for name in part.names]
