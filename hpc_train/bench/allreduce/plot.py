"""The picture: bandwidth over size, a line per side; bus bandwidth below the algorithm's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpc_train.bench.allreduce.report import by_dtype, size_text
from hpc_train.bench.allreduce.settings import SIDES
from hpc_train.errors import HpcTrainError

# Okabe and Ito's palette; ours are solid, others dashed, the limit dotted
_STYLES: dict[str, dict[str, Any]] = {
    "arena": {"color": "#0072B2", "marker": "o", "linewidth": 2.2},
    "once": {"color": "#0072B2", "marker": "*", "linewidth": 2.2},
    "auto_arena": {"color": "#56B4E9", "marker": "o"},
    "auto": {"color": "#009E73", "marker": "s", "linewidth": 2.2},
    "shared": {"color": "#009E73", "marker": "^", "alpha": 0.5},
    "ring": {"color": "#CC79A7", "marker": "v"},
    "hierarchical": {"color": "#F0E442", "marker": "D"},
    "native": {"color": "#E69F00", "marker": "P"},
    "mpi": {"color": "#D55E00", "marker": "x", "linestyle": "--"},
    "mpi_malloc": {"color": "#E69F00", "marker": "x", "linestyle": "--"},
    "gloo": {"color": "#777777", "marker": "+", "linestyle": "--"},
    "limit": {"color": "black", "linestyle": ":"},
    "limit_arena": {"color": "black", "linestyle": "-."},
}
_KINDS = {"algorithm_bandwidth": "algorithm bandwidth", "bus_bandwidth": "bus bandwidth"}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw the results of a study into a PNG file.

    Args:
        document: what `study` gave.
        path: the file to write.

    Raises:
        HpcTrainError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    groups = by_dtype(document["points"])
    figure = Figure(figsize=(5.2 * len(groups) + 1.8, 8), layout="constrained")
    grid = figure.subplots(len(_KINDS), len(groups), squeeze=False, sharex=True)
    for row, kind in zip(grid, _KINDS, strict=True):
        for axes, (dtype, points) in zip(row, groups.items(), strict=True):
            _lines(axes, points, kind)
            axes.set_title(f"{dtype}, {_KINDS[kind]}", fontsize=10)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9)
    environment = document["environment"]
    figure.suptitle(
        f"Sums over {document['settings']['ranks']} ranks on {document['nodes']} x "
        f"{environment['processor']} ({environment['cores']} cores), {environment['date']}",
        fontsize=10,
    )
    try:
        figure.savefig(path, dpi=130)
    except OSError as error:
        raise HpcTrainError(f"cannot write the plot: {error.strerror}", where=str(path)) from error


def _lines(axes: Any, points: Sequence[Mapping[str, Any]], kind: str) -> None:
    for name, title in SIDES.items():
        shown = [point for point in points if name in point["sides"]]
        axes.plot(
            [point["bytes"] for point in shown],
            [point["sides"][name][kind] / 1e9 for point in shown],
            label=title,
            markersize=5,
            **_STYLES[name],
        )
    sizes = [point["bytes"] for point in points]
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes, [size_text(size) for size in sizes], rotation=60, fontsize=8)
    axes.set_ylabel("GB/s")
    axes.grid(alpha=0.25, which="both")
