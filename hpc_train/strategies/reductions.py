"""Which reduction the gradients of a run get."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hpc_train.comm import Comm, Terms, lets_threads
from hpc_train.comm.compression.cost import decide
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.overlap import Line, Overlapped
from hpc_train.strategies.reduction import Compressed, Plain, Reduction, matrices_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Means:
    """How gradients are summed.

    Attributes:
        collective: how ranks sum.
        compression: how gradients are compressed.
        overlap: whether they are summed while backward goes on; None where it pays.
    """

    collective: str = "auto"
    compression: Terms = Terms()  # noqa: RUF009
    overlap: bool | None = False


@dataclass(frozen=True)
class Decision:
    """What was found out at the beginning, and holds for whoever goes on.

    Attributes:
        compression: how gradients are compressed.
        overlap: whether they are summed while backward goes on.
    """

    compression: str
    overlap: bool


def find_out(comm: Comm, learners: Sequence[Learner], means: Means) -> Decision | None:
    """What "auto" comes to; collective. None for one rank, which has nobody to sum with."""
    if comm.world.size == 1:
        return None
    terms = means.compression
    name = _decided(comm, learners, terms) if terms.name == "auto" else terms.name
    overlap = can_pay(comm, learners) if means.overlap is None else means.overlap
    return Decision(name, overlap)


def follow(
    comm: Comm, learners: Sequence[Learner], means: Means, own: Decision | None
) -> Decision | None:
    """What the first rank that knows has found out; one that was alone until now does not."""
    told = comm.gather(None if own is None else [own.compression, own.overlap])
    known = next((one for one in told if one is not None), None)
    return find_out(comm, learners, means) if known is None else Decision(*known)


def make_reductions(
    comm: Comm, learners: Sequence[Learner], means: Means, decision: Decision | None
) -> dict[str, Reduction]:
    """How the gradients of each learner are summed, by its name; collective.

    Raises:
        UsageError: on every rank, if there is no such collective or compression.
        SetupError: on every rank, if overlap is asked for and this MPI does not let threads use it.
    """
    asked = means.compression.name
    name = decision.compression if decision else "none" if asked == "auto" else asked
    overlaps = comm.world.size > 1 and decision is not None and decision.overlap
    line = Line(comm) if overlaps else None
    on = comm if line is None else line.comm
    terms = replace(means.compression, name=name)
    found: dict[str, Reduction] = {}
    for one in learners:
        inner: Reduction
        if name == "none":
            inner = Plain(on, one, means.collective, in_buckets=overlaps)
        else:
            inner = Compressed(comm, on, one, terms, in_buckets=overlaps)
        is_trial = means.overlap is None
        found[one.name] = (
            inner if line is None else Overlapped(comm, line, inner, is_trial=is_trial)
        )
    return found


def can_pay(comm: Comm, learners: Sequence[Learner]) -> bool:
    """Whether summing while backward goes on can save time at all; collective.

    In the memory of one node it is the processor's own work, and hides behind nothing.
    """
    on_device = any(a.grad.device.type != "cpu" for one in learners for a in one.arenas)
    wanted = all(comm.gather(on_device)) or comm.world.num_nodes > 1
    return wanted and lets_threads(comm)


def _decided(comm: Comm, learners: Sequence[Learner], terms: Terms) -> str:
    """The compression that pays here, told with its reason."""
    arenas = [arena for learner in learners for arena in learner.arenas]
    sizes = [arena.grad.numel() for arena in arenas]
    layouts = [matrices_of(arena, slice(0, arena.grad.numel())) for arena in arenas]
    verdict = decide(comm, sizes, layouts, terms)
    if comm.world.is_coordinator:
        logger.info("comm.gradient_compression auto: %s (%s)", verdict.name, verdict.reason)
    return verdict.name
