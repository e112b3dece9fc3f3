"""`hpc-train tune ...`, but that each rank takes the trials of its number in fixed turns.

The other side of `main.py groups`: trial n goes to rank n % ranks, whoever is free, and no rank
joins another. All else is the same.
"""

from hpc_train.cli import main
from hpc_train.tune.assign import Place
from hpc_train.tune.roster import Roster


def in_turns(self: Roster, now: float, *, widened: bool) -> list[Place]:
    """The next trial of each free rank's own."""
    own: dict[int, int] = {}
    for trial in sorted(self.waiting):
        own.setdefault(trial % len(self.facts.nodes), trial)
    return [Place(own[rank], (rank,), now, now) for rank in sorted(self.free & own.keys())]


if __name__ == "__main__":
    Roster.starts = in_turns  # type: ignore[method-assign]
    Roster.joinable = lambda self, now: None  # type: ignore[method-assign]
    main()
