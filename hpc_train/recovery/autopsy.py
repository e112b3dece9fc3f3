"""The autopsy: from the flight records of all ranks to the one with which it began; pure.

In this order, since each explains what comes after it:

    diverged   ranks name the operations that they do together; the first one that another rank
               names differently
    stopped    a process that exists and does not run
    hung       a rank that does something alone for longer than it may, while others wait for it
    died       of those that are gone without a word, the one whose last sign of life is oldest
    failed     of those that left with an error, the first
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hpc_train.recovery.flight import OTHER, Flight

WAITING = ("communication", "waiting")  # phases in which a rank waits for others


@dataclass(frozen=True)
class Verdict:
    """With which rank it began.

    Attributes:
        what: "diverged", "stopped", "hung", "died", "failed", or "well".
        rank, host, pid: whom it is about; -1 and "" for "well".
        batch, phase, operation: where.
        text: a sentence.
    """

    what: str
    text: str
    rank: int = -1
    host: str = ""
    pid: int = -1
    batch: int = -1
    phase: str = ""
    operation: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def fate(flight: Flight, process: str, now: float, ahead: int = 0) -> str:
    """How a rank is: "left", "failed", "died", "stopped", "hung", "waiting" or "running".

    Args:
        flight: its record.
        process: the state of its process, as `process.state_of`; "?" if that cannot be known.
        now: the time on the monotonic clock of its node.
        ahead: the operations that the rank furthest ahead has begun.
    """
    if flight.status != "running":
        return flight.status
    if process == "":
        return "died"
    if process == "T":
        return "stopped"
    if flight.state.phase in WAITING and flight.state.operations >= ahead:
        return "waiting"
    overdue = now - flight.state.since_seconds > flight.state.limit_seconds
    return "hung" if overdue and process != "?" else "running"


def judge(flights: Sequence[Flight], fates: Mapping[int, str]) -> Verdict:
    """With which rank it began, and where.

    Args:
        flights: the records of all ranks.
        fates: of each rank, as `fate`.
    """
    if (found := diverged(flights)) is not None:
        flight, number, own, others = found
        text = f"named its operation {number} {own}, where others named theirs {others}"
        return _verdict("diverged", flight, text, operation=own)
    for what in ("stopped", "hung"):
        late = [flight for flight in flights if fates[flight.rank] == what]
        if late:
            first = min(late, key=lambda f: (f.state.operations, f.state.since_seconds))
            text = "is stopped (SIGSTOP)" if what == "stopped" else "is hung"
            return _verdict(what, first, text)
    for what in ("died", "failed"):
        gone = [flight for flight in flights if fates[flight.rank] == what]
        if gone:
            first = min(gone, key=lambda f: f.last_sign)
            ahead = max(flight.state.operations for flight in flights)
            alone = first.state.phase not in WAITING or first.state.operations < ahead
            was_hung = what == "died" and alone and _hung_before(first)
            text = "was hung before it was killed" if was_hung else what
            if len(gone) > 1:
                later = min(f.last_sign for f in gone if f is not first) - first.last_sign
                text += f", {later:.2f} s before the next"
            return _verdict(what, first, text)
    return Verdict("well", "no rank failed, died or hangs")


def diverged(flights: Sequence[Flight]) -> tuple[Flight, int, str, str] | None:
    """The first rank whose operations differ from the others', which number, its name, theirs."""
    named: dict[int, dict[int, str]] = {}
    for flight in flights:
        for event in flight.events:
            if event.kind == "operation" and event.operation != OTHER:
                named.setdefault(event.number, {})[flight.rank] = event.operation
    for number in sorted(named):
        names = named[number]
        if len(set(names.values())) < 2:
            continue
        counts = Counter(names.values())
        usual = max(counts, key=lambda name: (counts[name], -min(_of(names, name))))
        odd = min(rank for rank, name in names.items() if name != usual)
        return next(f for f in flights if f.rank == odd), number, names[odd], usual
    return None


def _of(names: Mapping[int, str], name: str) -> list[int]:
    return [rank for rank, one in names.items() if one == name]


def _hung_before(flight: Flight) -> bool:
    """Whether a rank lived on for longer than its phase might last."""
    since = flight.events[-1].time if flight.events else flight.started
    return flight.heard - since > flight.state.limit_seconds


def _verdict(what: str, flight: Flight, text: str, operation: str | None = None) -> Verdict:
    state = flight.state
    where = f"in phase {state.phase}" if state.phase else "between two phases"
    batch = f"batch {state.batch}, " if state.batch >= 0 else ""
    last = operation or state.operation
    doing = f" (operation: {last})" if last else ""
    return Verdict(
        what,
        f"rank {flight.rank} on {flight.host} (pid {flight.pid}) {text}: {batch}{where}{doing}",
        flight.rank,
        flight.host,
        flight.pid,
        state.batch,
        state.phase,
        last,
    )
