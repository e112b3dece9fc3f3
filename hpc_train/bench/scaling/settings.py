"""What shall be measured, and in which order: pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from hpc_train.bench.scaling.workload import MODES
from hpc_train.errors import UsageError, unknown

SIDES = ("hpc_train", "ddp", "alone")
TITLES = {"hpc_train": "hpc_train", "ddp": "torch DDP (gloo)", "alone": "limit (no exchange)"}


class Turn(NamedTuple):
    """One job of a round: who, on how many ranks, with how large a global batch."""

    side: str
    ranks: int
    batch_size: int


@dataclass(frozen=True)
class Settings:
    """What shall be measured.

    Attributes:
        ranks: numbers of ranks, ascending, the smallest is what the others are compared with.
        modes: of `MODES`.
        rounds: how often every job takes its turn, >= 1.
        steps, warmup: steps of a job that count, and those before them that do not.
        threads: torch threads per rank, >= 1.
        batch_size: global batch of strong scaling, and of the smallest number of ranks.
        micro_batch_size: most samples that go through the network at once.
    """

    ranks: tuple[int, ...]
    modes: tuple[str, ...] = MODES
    rounds: int = 3
    steps: int = 20
    warmup: int = 5
    threads: int = 1
    batch_size: int = 128
    micro_batch_size: int = 32

    def __post_init__(self) -> None:
        if not self.ranks or min(self.ranks) < 1 or list(self.ranks) != sorted(set(self.ranks)):
            raise UsageError(f"ranks must be different numbers >= 1 (ranks: {self.ranks})")
        for mode in self.modes:
            if mode not in MODES:
                raise UsageError(unknown("mode", mode, MODES), where="--modes")
        if not self.modes:
            raise UsageError(f"a mode is needed, known: {', '.join(MODES)}", where="--modes")
        if max(self.ranks) > self.batch_size:
            raise UsageError(
                f"every rank needs a sample of the global batch (ranks: {max(self.ranks)}, "
                f"batch size: {self.batch_size})",
                hint=f"--batch-size {max(self.ranks) * self.micro_batch_size}",
            )

    @property
    def base(self) -> int:
        """The number of ranks that others are compared with."""
        return self.ranks[0]

    @property
    def largest_batch(self) -> int:
        """Samples of the largest global batch of any job."""
        return max(turn.batch_size for turn in self.turns())

    def batch(self, mode: str, ranks: int) -> int:
        """Samples of the global batch on `ranks` ranks."""
        return self.batch_size if mode == "strong" else self.batch_size * ranks // self.base

    def turns(self) -> list[Turn]:
        """The jobs of a round in their order; both modes share those that are the same."""
        turns = [
            Turn(side, ranks, self.batch(mode, ranks))
            for mode in self.modes
            for ranks in self.ranks
            for side in SIDES
        ]
        return list(dict.fromkeys(turns))

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return asdict(self)


def parse_ranks(text: str) -> tuple[int, ...]:
    """The numbers of ranks that "1,2,4" names, ascending, each once.

    Raises:
        UsageError: if it does not read like that.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdigit() and int(word) > 0 for word in words):
        raise UsageError(
            f'numbers of ranks must read like 1,2,4 (value: "{text}")', where="--ranks"
        )
    return tuple(sorted({int(word) for word in words}))


def parse_modes(text: str) -> tuple[str, ...]:
    """The modes that "strong,weak" names, each once, in that order."""
    return tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))


def sides_that_train(turns: Sequence[Turn]) -> list[Turn]:
    """The turns in which all ranks train one model, so that there is a loss to compare."""
    return [turn for turn in turns if turn.side != "alone"]
