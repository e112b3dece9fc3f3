"""`hpc-train tune ...` for `main.py groups`: `turns.py groups|turns STUDY.toml ...`, as a rank.

With "turns" each rank takes the trials of its number in fixed turns: trial n goes to rank
n % ranks, whoever is free, and no rank joins another. All else is the same. On both sides a rank
that waits does so in a loop without sleep, as MPI does: where it left its core to others, they
would be faster while it idles, and idling would cost less than it does on cores of one's own.
"""

import sys

from hpc_train.cli import main
from hpc_train.tune import member
from hpc_train.tune.assign import Place
from hpc_train.tune.roster import Roster


def in_turns(self: Roster, now: float, *, widened: bool) -> list[Place]:
    """The next trial of each free rank's own."""
    own: dict[int, int] = {}
    for trial in sorted(self.waiting):
        own.setdefault(trial % len(self.facts.nodes), trial)
    return [Place(own[rank], (rank,), now, now) for rank in sorted(self.free & own.keys())]


if __name__ == "__main__":
    member._POLL_SECONDS = 0.0
    if sys.argv.pop(1) == "turns":
        Roster.starts = in_turns  # type: ignore[method-assign]
        Roster.joinable = lambda self, now: None  # type: ignore[method-assign]
    main()
