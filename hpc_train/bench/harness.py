"""What every benchmark shares: fair turns, honest statistics, and a record of the circumstances.

round 1   A B C        Sides take turns, so that a machine that slows down slows all of them.
round 2   A B C        Ratios are taken within a round, and the median of them over rounds:
round 3   A B C        neighbours in time share their noise, and it cancels.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from hpc_train.errors import HpcTrainError
from hpc_train.observe import environment, write_json

SCHEMA_VERSION = 1
_CPU_FACTS = Path("/proc/cpuinfo")

Side = TypeVar("Side")


@dataclass(frozen=True)
class Summary:
    """A figure over several rounds: its median, its extremes, and how many there were."""

    median: float
    low: float
    high: float
    count: int

    @property
    def spread(self) -> float:
        """The distance of the extremes, relative to the median; NaN if that is 0."""
        return (self.high - self.low) / self.median if self.median else float("nan")

    def to_json(self) -> dict[str, float]:
        """Median, low, high and count."""
        return asdict(self)


def summary(values: Sequence[float]) -> Summary:
    """The summary of at least one value.

    Raises:
        ValueError: if there is none.
    """
    if not values:
        raise ValueError("a summary needs at least one value")
    return Summary(statistics.median(values), min(values), max(values), len(values))


def paired_ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """numerators[i] / denominators[i], of values that were measured in the same round i.

    Args:
        numerators: shape (rounds,).
        denominators: shape (rounds,), > 0.

    Raises:
        ValueError: if they are not of the same length.
    """
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def alternate(sides: Sequence[Side], rounds: int) -> Iterator[tuple[int, Side]]:
    """(round, side) in the order of measuring: A B C A B C ..., rounds counted from 0."""
    return ((number, side) for number in range(rounds) for side in sides)


def cpu_model(cpu_facts: Path = _CPU_FACTS) -> str:
    """The name of the processor; the architecture where the kernel does not tell."""
    try:
        lines = cpu_facts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def circumstances() -> dict[str, Any]:
    """When and where this process measures: date, versions, processor, cores, load, command."""
    # of paths only the last part: where data lie on one machine is of no use on another
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv[1:]]
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": round(os.getloadavg()[0], 2),
        **environment(),
        "command": [Path(sys.argv[0]).name, *words],
    }


def busy_machine(load_average: float, cores: int) -> str | None:
    """A warning if others keep so many cores busy that figures will be theirs as well."""
    if load_average < 0.25 * cores:
        return None
    return (
        f"warning: other processes keep this machine busy (load average: {load_average:.2f}, "
        f"cores: {cores}); figures will scatter, so take more --rounds or a quieter moment"
    )


def write_results(path: Path, document: dict[str, Any]) -> None:
    """Write the document of a benchmark, with its `schema_version`, atomically.

    Raises:
        HpcTrainError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"schema_version": SCHEMA_VERSION, **document})
    except OSError as error:
        raise HpcTrainError(
            f"cannot write the results: {error.strerror}",
            where=str(path),
            hint="choose another folder with --out DIR",
        ) from error


def read_results(path: Path) -> dict[str, Any]:
    """The document that `write_results` wrote.

    Raises:
        HpcTrainError: if there is none that can be read.
    """
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HpcTrainError(f"cannot read results: {error}", where=str(path)) from error
    return document


def relative_difference(values: Iterable[float], others: Iterable[float]) -> float:
    """The largest |a - b| / |b| over pairs of values; 0 without any, NaN if any of them is.

    Raises:
        ValueError: if there are not as many of one as of the other.
    """
    found = [abs(a - b) / abs(b) for a, b in zip(values, others, strict=True)]
    # max() would pass over a NaN, as no comparison with it holds
    return math.nan if any(map(math.isnan, found)) else max(found, default=0.0)
