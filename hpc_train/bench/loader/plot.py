"""The picture of a study of loading: a bar per side, on a logarithmic axis."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpc_train.bench.loader.sides import OURS
from hpc_train.errors import HpcTrainError

# Okabe and Ito's palette: told apart by every eye, and in print
_OURS, _OTHERS, _LIMITS = "#0072B2", "#D55E00", "#999999"


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw the results of a study into a PNG file.

    Raises:
        HpcTrainError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    sides = list(document["sides"].items())[::-1]
    figure = Figure(figsize=(9, 0.5 * len(sides) + 1.6), layout="constrained")
    axes = figure.subplots()
    rates = [side["samples_per_second"] for _, side in sides]
    middles = [rate["median"] for rate in rates]
    errors = [
        [rate["median"] - rate["low"] for rate in rates],
        [rate["high"] - rate["median"] for rate in rates],
    ]
    colours = [_colour(name, side["title"]) for name, side in sides]
    titles = [side["title"] for _, side in sides]
    bars = axes.barh(titles, middles, xerr=errors, color=colours, ecolor="#333333", capsize=2)
    axes.bar_label(bars, [f"{middle:,.0f}" for middle in middles], padding=6, fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(middles) / 3, max(rate["high"] for rate in rates) * 6)
    axes.set_xlabel("samples per second (bars: median, lines: extremes over rounds)")
    environment, settings = document["environment"], document["settings"]
    figure.suptitle(
        f"{settings['path']}, batches of {settings['batch_size']}, shuffle "
        f"{settings['shuffle']}, {'cold' if settings['cold'] else 'hot'} cache, "
        f"{environment['cores']} cores, {environment['date']}",
        fontsize=10,
    )
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise HpcTrainError(f"cannot write the plot: {error.strerror}", where=str(path)) from error


def _colour(name: str, title: str) -> str:
    if name == OURS:
        return _OURS
    return _LIMITS if title.startswith("limit") or name == "array" else _OTHERS
