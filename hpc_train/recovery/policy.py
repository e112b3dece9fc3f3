"""What survivors do after ranks died: a pure function of what each of them tells.

    rank   told                        A rank is lost while batch 7 is reduced. Ranks 0 and 3 saw
     0     batch 8, whole              the sum of it and updated; rank 2 did not. All are ahead by
     2     batch 7, whole              at most one commit, since the next needs all of them. So
     3     batch 8, whole              batch 7 is committed: 2 gets the state of 0, all go on at 8.

A commit is a phase of a batch; no rank ever goes back behind one that a survivor has made. A rank
that was lost together with the only copy of a commit leaves none: the batch is then done again by
the others, with all its samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Report:
    """Where a survivor is.

    Attributes:
        batch: global batches that it has committed.
        phases: phases that it has committed of the batch after them.
        looked_up: the batch of the last evaluation or save at a segment's end that it finished.
        leaving: whether it was told to save and leave.
        whole: whether its state is that of its position; false in the middle of a commit.
        fresh: whether it takes the place of a rank that died, and has no position yet.
    """

    batch: int
    phases: int
    looked_up: int
    leaving: bool = False
    whole: bool = True
    fresh: bool = False


@dataclass(frozen=True)
class Decision:
    """How the survivors go on, the same on each of them.

    Attributes:
        batch, phases: the position from which all go on.
        source: the lowest survivor that is there; None if nobody's state is whole.
        behind: who gets the source's state.
        looked_up: the batch of the last look-up that all of them finished.
        leaving: whether all save and leave.
        enough: whether there are as many survivors as were asked for.
        renewed: whether some of them take the place of ranks that died.
    """

    batch: int
    phases: int
    source: int | None
    behind: tuple[int, ...]
    looked_up: int
    leaving: bool
    enough: bool
    renewed: bool = False


def decide(reports: Sequence[Report], min_ranks: int = 1) -> Decision:
    """What to do.

    Args:
        reports: of each survivor, in the order of their new ranks, at least one.
        min_ranks: how many must be left to go on, >= 1.
    """
    older = [one for one in reports if not one.fresh]
    whole = [(one.batch, one.phases) for one in older if one.whole]
    newest = max(whole, default=(0, 0))
    there = [one.whole and not one.fresh and (one.batch, one.phases) == newest for one in reports]
    return Decision(
        batch=newest[0],
        phases=newest[1],
        source=there.index(True) if whole else None,
        behind=tuple(rank for rank, is_there in enumerate(there) if not is_there),
        looked_up=min((one.looked_up for one in older), default=-1),
        leaving=any(one.leaving for one in reports),
        enough=len(reports) >= min_ranks,
        renewed=len(older) < len(reports),
    )
