"""From seconds to bandwidths and ratios, and to the rows of tables: pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_train.bench.allreduce.settings import MPI_SIDES, SIDES
from hpc_train.bench.harness import paired_ratios, summary

Point = Mapping[str, Any]

# (name, one side, what it is compared with)
_COMPARED = (
    ("arena / MPI", "arena", "mpi"),
    ("arena / best MPI", "arena", "best"),
    ("arena / limit", "arena", "limit"),
    ("once / limit", "once", "limit"),
    ("once / limit, arena", "once", "limit_arena"),
    ("once / MPI", "once", "mpi"),
    ("auto / MPI", "auto", "mpi"),
    ("arena / gloo", "arena", "gloo"),
)
_LEAST_FOR_LIMIT = 2**26  # smaller buffers lie in the caches, and memory is no limit to them


def figures(point: Point, ranks: int) -> dict[str, Any]:
    """One measured point as summaries.

    Args:
        point: dtype, bytes, and seconds: side -> those of each round.
        ranks: how many took part, >= 2.

    Returns:
        dtype, bytes; sides: name -> seconds (a summary), algorithm_bandwidth (bytes of the buffer
        per second) and bus_bandwidth (times 2(p-1)/p: what each rank must at least send, in
        comparison to the speed of hardware); ratios: name -> summary of how many times as fast,
        paired by rounds.
    """
    seconds: Mapping[str, Sequence[float]] = point["seconds"]
    sides = {}
    for name, values in seconds.items():
        found = summary(values)
        bandwidth = point["bytes"] / found.median
        sides[name] = {
            "seconds": found.to_json(),
            "algorithm_bandwidth": bandwidth,
            "bus_bandwidth": bandwidth * 2 * (ranks - 1) / ranks,
        }
    others = [name for name in MPI_SIDES if name in seconds]
    best = min(others, key=lambda name: summary(seconds[name]).median, default="")
    ratios = {}
    for name, ours, theirs in _COMPARED:
        against = best if theirs == "best" else theirs
        beyond_caches = not theirs.startswith("limit") or point["bytes"] >= _LEAST_FOR_LIMIT
        if ours in seconds and against in seconds and beyond_caches:
            ratios[name] = summary(paired_ratios(seconds[against], seconds[ours])).to_json()
    return {
        "dtype": point["dtype"],
        "bytes": point["bytes"],
        "best_mpi": best or None,
        "sides": sides,
        "ratios": ratios,
    }


def bandwidth_rows(points: Sequence[Point], kind: str = "algorithm_bandwidth") -> list[list[str]]:
    """A table of GB/s: a row per size, a column per side; of one type."""
    names = [name for name in SIDES if any(name in point["sides"] for point in points)]
    rows = [["size", *(SIDES[name] for name in names)]]
    for point in points:
        cells = [
            f"{point['sides'][name][kind] / 1e9:#.3g}".rstrip(".") if name in point["sides"] else ""
            for name in names
        ]
        rows.append([size_text(point["bytes"]), *cells])
    return rows


def ratio_rows(points: Sequence[Point]) -> list[list[str]]:
    """A table of median ratios: a row per size, the last one their geometric mean."""
    names = [name for name, _, _ in _COMPARED if any(name in point["ratios"] for point in points)]
    rows = [["size", *names]]
    for point in points:
        cells = [
            f"{point['ratios'][name]['median']:.2f}" if name in point["ratios"] else ""
            for name in names
        ]
        rows.append([size_text(point["bytes"]), *cells])
    means = [
        math.exp(sum(logs) / len(logs))
        for logs in (
            [math.log(p["ratios"][name]["median"]) for p in points if name in p["ratios"]]
            for name in names
        )
    ]
    return [*rows, ["mean", *(f"{mean:.2f}" for mean in means)]]


def by_dtype(points: Sequence[Point]) -> dict[str, list[Point]]:
    """Points of each type, in their order."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point["dtype"], []).append(point)
    return found


def size_text(size: int) -> str:
    """A size in the largest unit that divides it: "64 KiB"."""
    for unit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"
