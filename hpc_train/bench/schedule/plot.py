"""The picture of a study: who computes and who waits in the last step, and all finishes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_train.bench.schedule.study import IDEAL
from hpc_train.errors import HpcTrainError

# Okabe and Ito's palette: told apart by every eye, and in print
_COLOURS = {
    IDEAL: "#555555",
    "static": "#D55E00",
    "round_robin": "#E69F00",
    "proportional": "#009E73",
    "min_finish_time": "#0072B2",
    "dynamic": "#CC79A7",
}
_WAITING = "#E4E4E4"
_SHOWN_RANKS = 32
_SHOWN_STEPS = 60  # the beginning, where policies learn


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw the results of a study into a PNG file: a Gantt chart of each side, and the finishes.

    Raises:
        HpcTrainError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    sides = document["sides"]
    shown = min(document["ranks"], _SHOWN_RANKS)
    height = 1.0 + 0.16 * max(shown, 4)
    figure = Figure(figsize=(11, height * len(sides) * 0.8 + 0.8), layout="constrained")
    grid = figure.add_gridspec(1, 2)
    left, right = figure.add_subfigure(grid[0, 0]), figure.add_subfigure(grid[0, 1])
    longest = max(max(side["busy_seconds"]) for side in sides.values())
    panels = left.subplots(len(sides), 1, sharex=True)
    for axes, (name, side) in zip(panels, sides.items(), strict=True):
        _gantt(axes, name, side, shown, longest)
    panels[-1].set_xlabel("seconds of the last step")
    _finishes(right.subplots(), sides)
    hidden = document["ranks"] - shown
    figure.suptitle(
        f"{document['source']}, batch {document['batch_size']}, {document['steps']} steps"
        + (f"; {hidden} more ranks not drawn" if hidden else "")
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise HpcTrainError(f"cannot write the plot: {error.strerror}", where=str(path)) from error


def _gantt(axes: Any, name: str, side: Mapping[str, Any], shown: int, longest: float) -> None:
    """Bars of computing, each with its samples, and of waiting for the last rank."""
    busy = [
        seconds if count else 0.0
        for count, seconds in zip(side["counts"], side["busy_seconds"], strict=True)
    ]
    last = max(busy)
    places = range(shown)
    axes.barh(places, busy[:shown], color=_COLOURS[name])
    waiting = [last - seconds for seconds in busy[:shown]]
    axes.barh(places, waiting, left=busy[:shown], color=_WAITING)
    if shown <= 16:
        for place, count in enumerate(side["counts"][:shown]):
            axes.text(longest * 0.01, place, str(count), va="center", fontsize=7, color="white")
    axes.axvline(last, color="black", linewidth=1)
    axes.set_xlim(0, longest * 1.02)
    axes.invert_yaxis()
    axes.set_yticks(list(places) if shown <= 8 else [0, shown - 1])
    axes.set_ylabel("rank")
    axes.set_title(f"{name}: all done after {last:.4g} s", fontsize=9, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _finishes(axes: Any, sides: Mapping[str, Any]) -> None:
    for name, side in sides.items():
        finishes = side["finish_seconds"][:_SHOWN_STEPS]
        # dashes where lines often lie upon each other
        style: dict[str, dict[str, Any]] = {IDEAL: {"linestyle": "--", "zorder": 5}}
        style["round_robin"] = {"linestyle": ":"}
        axes.plot(finishes, color=_COLOURS[name], label=name, linewidth=1.6, **style.get(name, {}))
    axes.set_ylim(bottom=0)
    axes.set_xlabel("step" + (" (the first ones)" if len(finishes) == _SHOWN_STEPS else ""))
    axes.set_ylabel("seconds until the last rank is done")
    axes.grid(axis="y", linewidth=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
