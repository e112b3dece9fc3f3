"""Operations made of phases: each rank does its steps, all meet at a barrier, the next phase."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

# a function and its arguments
Step = tuple[Callable[..., Any], tuple[Any, ...]]
Phase = list[Step]


def walk(phase: Phase) -> None:
    """Do the steps of a phase, in order."""
    for function, arguments in phase:
        function(*arguments)


class PhasedSum:
    """A sum whose every step was prepared: a launch only walks through them.

    Args:
        barrier: what all ranks of the node pass between one phase and the next.
        turns: phases of the first launch, of the second, ..., and round again; every rank has as
            many of them.
    """

    def __init__(self, barrier: Callable[[], None], *turns: Sequence[Phase]) -> None:
        self._barrier = barrier
        self._turns = itertools.cycle(turns)

    def launch(self) -> None:
        """Do all of it: nothing goes on behind the caller's back."""
        barrier = self._barrier
        first, *others = next(self._turns)
        walk(first)
        for phase in others:
            barrier()
            walk(phase)

    def finish(self) -> None:
        """Nothing is left to do."""
