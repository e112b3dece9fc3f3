"""From what jobs measured to figures: speed-up, efficiency, ratios, parts of a step. Pure.

    speed-up(n)     n0 t(n0) / t(n)  strong,   n t(n0) / t(n)  weak      t: seconds of a step
    efficiency(n)   speed-up(n) / n                                      n0: fewest ranks
    of the limit    t(n) of the limit / t(n) of ours
    vs DDP          t(n) of DDP / t(n) of ours                           > 1: ours is faster

Every figure is the median, over rounds, of what was measured within one round.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from hpc_train.bench import harness
from hpc_train.bench.scaling.clock import PARTS
from hpc_train.bench.scaling.settings import SIDES, TITLES, Settings, Turn, sides_that_train
from hpc_train.errors import HpcTrainError

OURS, COMPETITOR, LIMIT = SIDES
LOSS_TOLERANCE = 1e-3  # relative; ReLU and max-pooling amplify rounding in float32

Measured = Mapping[Turn, Sequence[Mapping[str, Any]]]  # of each turn, its result in each round


def report(settings: Settings, measured: Measured) -> dict[str, Any]:
    """The figures of every mode and number of ranks, as JSON.

    Args:
        settings: what was measured.
        measured: shape (rounds,) for every turn of `settings`.

    Raises:
        HpcTrainError: if the sides did not train the same.
    """
    some = measured[settings.turns()[-1]][0]
    return {
        "settings": settings.to_json(),
        "mpi": some["mpi"],
        "nodes": some["nodes"],
        "loss_difference": check_losses(measured),
        "modes": {
            mode: [_point(settings, measured, mode, ranks) for ranks in settings.ranks]
            for mode in settings.modes
        },
        "jobs": [
            {**turn._asdict(), "step_seconds": _seconds(measured[turn])}
            for turn in settings.turns()
        ],
    }


def check_losses(measured: Measured) -> float:
    """The largest relative difference between the losses of sides that train the same batches.

    Raises:
        HpcTrainError: if it is more than `LOSS_TOLERANCE`: then they did not do the same work.
    """
    reference: dict[int, tuple[Turn, Sequence[float]]] = {}
    worst = 0.0
    for turn in sides_that_train(list(measured)):
        for result in measured[turn]:
            first, losses = reference.setdefault(turn.batch_size, (turn, result["losses"]))
            difference = harness.relative_difference(result["losses"], losses)
            if not difference <= LOSS_TOLERANCE:
                raise HpcTrainError(
                    f"all must train the same, with losses within {LOSS_TOLERANCE:g} of each "
                    f"other ({_name(turn)} and {_name(first)} differ by {difference:.2g})",
                    hint="measure with fewer --steps, in which rounding is not amplified",
                )
            worst = max(worst, difference)
    return worst


def _name(turn: Turn) -> str:
    return f"{TITLES[turn.side]} on {turn.ranks} ranks"


def _seconds(results: Sequence[Mapping[str, Any]]) -> list[float]:
    return [float(result["step_seconds"]) for result in results]


def _point(settings: Settings, measured: Measured, mode: str, ranks: int) -> dict[str, Any]:
    """All figures of one mode and number of ranks."""
    batch = settings.batch(mode, ranks)
    first = settings.batch(mode, settings.base)
    results = {side: measured[Turn(side, ranks, batch)] for side in SIDES}
    seconds = {side: _seconds(results[side]) for side in SIDES}
    base = {side: _seconds(measured[Turn(side, settings.base, first)]) for side in SIDES}
    # speed-up counts samples per second, so the batch that has grown counts as well
    growth = settings.base * batch / first
    return {
        "ranks": ranks,
        "batch_size": batch,
        "oversubscribed": bool(results[OURS][0]["oversubscribed"]),
        "sides": {
            side: _figures(seconds[side], base[side], batch, growth, ranks) for side in SIDES
        },
        "of_limit": _ratio(seconds[LIMIT], seconds[OURS]),
        "vs_ddp": _ratio(seconds[COMPETITOR], seconds[OURS]),
        "parts_seconds": _parts([result["parts_seconds"] for result in results[OURS]]),
    }


def _figures(
    seconds: list[float], base: list[float], batch: int, growth: float, ranks: int
) -> dict[str, Any]:
    """One side: its step, throughput, speed-up and efficiency."""
    speed_up = harness.summary([growth * r for r in harness.paired_ratios(base, seconds)])
    step = harness.summary(seconds)
    return {
        "step_seconds": step.to_json(),
        "samples_per_second": batch / step.median,
        "speed_up": speed_up.to_json(),
        "efficiency": speed_up.median / ranks,
    }


def _ratio(numerators: list[float], denominators: list[float]) -> dict[str, float]:
    return harness.summary(harness.paired_ratios(numerators, denominators)).to_json()


def _parts(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The parts of a step, each the median over rounds."""
    return {name: statistics.median(parts[name] for parts in rounds) for name in PARTS}


HEADER = (
    "ranks",
    "side",
    "step",
    "samples/s",
    "speed-up",
    "(range)",
    "efficiency",
    "of limit",
    "vs DDP",
)


def rows(points: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The figures of one mode as a table for people; the first row is the header."""
    table = [list(HEADER)]
    for point in points:
        for side in SIDES:
            figures = point["sides"][side]
            speed_up = figures["speed_up"]
            first, ours = side == SIDES[0], side == OURS
            table.append(
                [
                    f"{point['ranks']}{'*' if point['oversubscribed'] else ''}" if first else "",
                    TITLES[side],
                    f"{1e3 * figures['step_seconds']['median']:.1f} ms",
                    f"{figures['samples_per_second']:,.0f}",
                    f"{speed_up['median']:.2f}",
                    f"{speed_up['low']:.2f}-{speed_up['high']:.2f}",
                    f"{figures['efficiency']:.0%}",
                    f"{point['of_limit']['median']:.0%}" if ours else "",
                    f"{point['vs_ddp']['median']:.2f}x" if ours else "",
                ]
            )
    return table


def part_rows(points: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Where our side's time goes, in ms and per cent of a step; the first row is the header."""
    table = [["ranks", *PARTS]]
    for point in points:
        parts = point["parts_seconds"]
        whole = sum(parts.values())
        table.append(
            [
                f"{point['ranks']}{'*' if point['oversubscribed'] else ''}",
                *(f"{1e3 * parts[name]:.2f} ms ({parts[name] / whole:.1%})" for name in PARTS),
            ]
        )
    return table
