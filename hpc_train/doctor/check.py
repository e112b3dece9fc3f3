"""What every subject speaks of: checks, and the facts of all ranks that they judge."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from hpc_train.world import World

OK, WARN, FAIL = "OK", "WARN", "FAIL"
Facts = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was looked at.
        status: "OK", "WARN" (works, but not as well as it could) or "FAIL" (will not work).
        text: what was found.
        hint: the remedy; None if there is nothing to mend.
    """

    name: str
    status: str
    text: str
    hint: str | None = None


@dataclass(frozen=True)
class Request:
    """What is to be examined.

    Attributes:
        data: the path of a data set; None if there is none to look at.
        run_dir: where runs are to be written.
        alone: no launcher started this process: MPI is only tried in a child process.
    """

    data: str | None
    run_dir: str
    alone: bool


@dataclass(frozen=True)
class Report:
    """The facts of all ranks: `ranks[r][subject]` is what rank r found on a subject."""

    world: World
    ranks: tuple[Facts, ...]

    def of(self, subject: str) -> list[Facts]:
        """The facts of every rank on a subject, by rank."""
        return [facts[subject] for facts in self.ranks]

    def nodes(self) -> list[list[int]]:
        """The ranks of each node, by node."""
        return [
            [rank for rank, node in enumerate(self.world.nodes) if node == number]
            for number in range(self.world.num_nodes)
        ]

    def host(self, rank: int) -> str:
        """The host name of a rank."""
        return str(self.ranks[rank]["ranks"]["host"])


@dataclass(frozen=True)
class Subject:
    """What is asked of every rank, and what is made of the answers (a pure function)."""

    facts: Callable[[Request], Facts]
    checks: Callable[[Report], list[Check]]


def listed(numbers: Iterable[int]) -> str:
    """Ranks in words: "rank 2", "ranks 0, 1, 3", and no more than six of them."""
    found = list(numbers)
    names = ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
    return f"rank {names}" if len(found) == 1 else f"ranks {names}"


def differing(values: list[Any]) -> str | None:
    """Which ranks hold which value, if they do not all hold the same; else None."""
    if all(value == values[0] for value in values):
        return None
    kinds = sorted({str(value) for value in values})
    return "; ".join(
        f"{kind} on {listed(r for r, value in enumerate(values) if str(value) == kind)}"
        for kind in kinds
    )
