"""Lets all sides read the same batches in turns, and puts their figures together."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from hpc_train.bench import harness
from hpc_train.bench.loader.settings import Settings, Workload, make_workload
from hpc_train.bench.loader.sides import OURS, SIDES, Side, sides_of


class Measured(NamedTuple):
    """One turn of one side."""

    samples: int
    seconds: float

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds


def study(
    settings: Settings, tell: Callable[[str], None], only: Collection[str] = SIDES
) -> dict[str, Any]:
    """Measure all sides on the data that `settings` name; gives the document of results.

    Args:
        settings: what to measure.
        tell: gets a line of progress now and then.
        only: names of the sides to measure; ours must be one of them.

    Raises:
        DataError: if the data cannot be read.
    """
    workload = make_workload(settings)
    sides = {name: side for name, side in sides_of(workload).items() if name in only}
    measured: dict[str, list[Measured]] = {name: [] for name in sides}
    for number, name in harness.alternate(list(sides), settings.rounds):
        if settings.cold:
            forget(workload)
        found = measure(sides[name], workload, workload.window_samples if name == OURS else 0)
        measured[name].append(found)
        tell(
            f"round {number + 1}/{settings.rounds}  {sides[name].title:<22}  "
            f"{found.rate:,.0f} samples/s"
        )
    return {
        "benchmark": "loader",
        "environment": harness.circumstances(),
        "settings": settings.to_json(),
        "data": {
            "samples": workload.dataset.num_samples,
            "sample_bytes": workload.sample_bytes,
            "fields": list(workload.fields),
            "file_bytes": sum(file.stat().st_size for file in workload.files),
        },
        "sides": figures(measured, {n: s.title for n, s in sides.items()}, workload.sample_bytes),
    }


def measure(side: Side, workload: Workload, least: int = 0) -> Measured:
    """One turn: to the end of the work, or of the time but not before `least` samples."""
    samples = 0
    with closing(side.turn(workload)) as turn:
        next(turn)
        started = time.perf_counter()
        elapsed = 0.0
        for count in turn:
            samples += count
            elapsed = time.perf_counter() - started
            if elapsed >= workload.settings.seconds and samples >= least:
                break
    return Measured(samples, elapsed)


def forget(workload: Workload) -> None:
    """Have the system drop the files from its page cache."""
    for file in workload.files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)  # pages that are not written yet cannot be dropped
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def figures(
    measured: Mapping[str, Sequence[Measured]], titles: Mapping[str, str], sample_bytes: int
) -> dict[str, dict[str, Any]]:
    """Of each side its rate, and how many times as fast ours is: medians over rounds; pure.

    Args:
        measured: shape (rounds,) for every side.
        titles: what sides are called.
        sample_bytes: bytes of a sample in memory.
    """
    ours = [found.rate for found in measured[OURS]]
    result = {}
    for name, rounds in measured.items():
        rates = [found.rate for found in rounds]
        rate = harness.summary(rates)
        result[name] = {
            "title": titles[name],
            "samples_per_second": rate.to_json(),
            "megabytes_per_second": rate.median * sample_bytes / 1e6,
            "ours_times_as_fast": harness.summary(harness.paired_ratios(ours, rates)).to_json(),
        }
    return result
