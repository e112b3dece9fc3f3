"""What shall be measured, and under which names: pure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hpc_train.errors import UsageError, unknown

DTYPES = {"float32": 4, "float64": 8, "bfloat16": 2}  # name -> bytes

# in the order of measuring; what MPI and gloo sum, and the collectives without "arena", are
# ordinary buffers; an arena lies in memory that the ranks of a node share
SIDES = {
    "mpi": "MPI",
    "mpi_malloc": "MPI, malloc",
    "native": "native",
    "ring": "ring",
    "shared": "shared",
    "hierarchical": "hierarchical",
    "auto": "auto",
    "arena": "shared arena",
    "once": "arena, once",
    "auto_arena": "auto arena",
    "gloo": "gloo",
    "limit": "limit",
    "limit_arena": "limit, arena",
}
MPI_SIDES = ("mpi", "mpi_malloc", "native")
_STEP = 4  # from one size to the next
_REPEATED_BYTES = 2 * 2**20
_MAX_REPEATS = 20


@dataclass(frozen=True)
class Settings:
    """What shall be measured.

    Attributes:
        ranks: how many, >= 2.
        smallest, largest: sizes of the buffer in bytes; those between are 4 times each other.
        dtypes: of `DTYPES`.
        rounds: how often every side takes its turn at every size, >= 1.
    """

    ranks: int = 2
    smallest: int = 2**10
    largest: int = 2**28
    dtypes: tuple[str, ...] = ("float32", "float64", "bfloat16")
    rounds: int = 15

    def __post_init__(self) -> None:
        if self.ranks < 2:
            raise UsageError(f"a sum needs at least 2 ranks (ranks: {self.ranks})", where="--ranks")
        for dtype in self.dtypes:
            if dtype not in DTYPES:
                raise UsageError(unknown("type", dtype, DTYPES), where="--dtypes")
        if not self.dtypes:
            raise UsageError(f"a type is needed, known: {', '.join(DTYPES)}", where="--dtypes")
        if not 8 <= self.smallest <= self.largest:
            raise UsageError(
                "sizes must be at least 8 bytes, and the largest not below the smallest "
                f"(smallest: {self.smallest}, largest: {self.largest})"
            )

    def sizes(self) -> list[int]:
        """The sizes in bytes, ascending, the largest one included."""
        found = []
        size = self.smallest
        while size < self.largest:
            found.append(size)
            size *= _STEP
        return [*found, self.largest]

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """Settings that `to_json` made."""
        return cls(**{**values, "dtypes": tuple(values["dtypes"])})


def repeats(size: int) -> int:
    """How often a side sums `size` bytes, > 0, in one turn: what is too short to time alone."""
    return max(1, min(_MAX_REPEATS, _REPEATED_BYTES // size))


def parse_dtypes(text: str) -> tuple[str, ...]:
    """The types that "float32,float64" names, each once, in that order."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
