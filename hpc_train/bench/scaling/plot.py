"""The picture of a study: speed-up over ranks, and where the time of a step goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_train.bench.scaling.clock import PARTS
from hpc_train.bench.scaling.settings import SIDES, TITLES
from hpc_train.errors import HpcTrainError, SetupError

# Okabe and Ito's palette: told apart by every eye, and in print
_SIDE_STYLES = {
    "hpc_train": {"color": "#0072B2", "marker": "o", "linewidth": 2.2, "zorder": 4},
    "ddp": {"color": "#D55E00", "marker": "s", "linewidth": 1.6, "zorder": 3},
    "alone": {"color": "#555555", "marker": "^", "linewidth": 1.2, "linestyle": "--"},
}
_PART_COLOURS = {
    "compute": "#0072B2",
    "communication": "#D55E00",
    "data": "#009E73",
    "waiting": "#F0E442",
    "other": "#BBBBBB",
}
_WORK = {"strong": "same global batch", "weak": "batch grows with ranks"}
_LEAST_SHOWN = 0.02  # parts of a step below this are not labelled


def require() -> None:
    """Check that plots can be drawn.

    Raises:
        SetupError: naming the extra to install.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SetupError(
            f"plots need matplotlib ({error})",
            hint="pip install 'hpc-train[plot]', or leave the plot out with --no-plot",
        ) from error


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw the results of a study into a PNG file.

    Args:
        document: what `study` gave.
        path: the file to write.

    Raises:
        HpcTrainError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    modes = document["modes"]
    figure = Figure(figsize=(10, 4.2 * len(modes)), layout="constrained")
    grid = figure.subplots(len(modes), 2, squeeze=False)
    for (mode, points), (left, right) in zip(modes.items(), grid, strict=True):
        _speed_up(left, mode, points)
        _parts(right, mode, points)
    environment, settings = document["environment"], document["settings"]
    figure.suptitle(
        f"{environment['processor']}, {_count(environment['cores'], 'core')} per node, "
        f"{_count(document['nodes'], 'node')}, {_count(settings['threads'], 'torch thread')} "
        f"per rank, {environment['date']}",
        fontsize=10,
    )
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise HpcTrainError(f"cannot write the plot: {error.strerror}", where=str(path)) from error


def _speed_up(axes: Any, mode: str, points: Sequence[Mapping[str, Any]]) -> None:
    """Speed-up over ranks, with the extremes over rounds."""
    ranks = [point["ranks"] for point in points]
    axes.plot(ranks, ranks, color="black", linewidth=0.8, linestyle=":", label="ideal")
    for side in SIDES:
        found = [point["sides"][side]["speed_up"] for point in points]
        middle = [figure["median"] for figure in found]
        below = [m - figure["low"] for m, figure in zip(middle, found, strict=True)]
        above = [figure["high"] - m for m, figure in zip(middle, found, strict=True)]
        axes.errorbar(
            ranks,
            middle,
            yerr=[below, above],
            label=TITLES[side],
            markersize=6,
            capsize=3,
            elinewidth=0.8,
            **_SIDE_STYLES[side],
        )
    axes.set_xticks(ranks, [_name(point) for point in points])
    axes.set_xlabel("ranks")
    axes.set_ylabel(f"speed-up over {_count(ranks[0], 'rank')}")
    axes.set_title(f"{mode} scaling: {_WORK[mode]}")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="upper left")
    if any(point["oversubscribed"] for point in points):
        axes.annotate(
            "* more threads than cores", (0.98, 0.03), xycoords="axes fraction", ha="right"
        )


def _parts(axes: Any, mode: str, points: Sequence[Mapping[str, Any]]) -> None:
    """Stacked bars: the parts of a step of our side."""
    names = [_name(point) for point in points]
    floor = [0.0] * len(points)
    tallest = max(sum(point["parts_seconds"].values()) for point in points) * 1e3
    for part in PARTS:
        heights = [1e3 * point["parts_seconds"][part] for point in points]
        bars = axes.bar(
            names, heights, 0.6, bottom=floor, label=part, color=_PART_COLOURS[part], linewidth=0
        )
        wholes = [1e3 * sum(point["parts_seconds"].values()) for point in points]
        labels = [
            f"{height / whole:.0%}" if height > 3 * _LEAST_SHOWN * tallest else ""
            for height, whole in zip(heights, wholes, strict=True)
        ]
        colour = "black" if part in ("waiting", "other") else "white"
        axes.bar_label(bars, labels, label_type="center", color=colour, fontsize=9)
        floor = [low + height for low, height in zip(floor, heights, strict=True)]
    axes.set_xlabel("ranks")
    axes.set_ylabel("ms a step")
    axes.set_title(f"{mode} scaling: where a step of hpc_train goes")
    axes.set_ylim(0, 1.3 * tallest)
    axes.legend(frameon=False, ncols=3, loc="upper right", fontsize=9)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _name(point: Mapping[str, Any]) -> str:
    return f"{point['ranks']}{'*' if point['oversubscribed'] else ''}"
