"""Tables of plain text, and the table at the end of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpc_train.observe import Result


def aligned(rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> list[str]:
    """Rows of cells as lines, in columns; the columns `left` flush left, the others right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def result_lines(result: Result) -> list[str]:
    """How a run ended, for people."""
    from hpc_train.observe.progress import clock

    lines = [""]
    width = max([12, *(len(data) + 2 for data in result.metrics)])
    for data, metrics in result.metrics.items():
        values = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        lines.append(f"{data:<{width}}{values}")
    lines.append(f"{'time':<12}{clock(result.seconds)} ({result.seconds:.1f} s)")
    if result.ranks:  # an ensemble's members have tables of their own
        lines += [*_rank_lines(result), *_balance_lines(result)]
    if result.staleness:
        told = ", ".join(f"{lacked}: {count}" for lacked, count in result.staleness.items())
        lines.append(f"{'staleness':<12}{told} (updates a gradient lacked: how many updates)")
    if result.status == "preempted":
        lines.append(f"saved at step {result.step}; go on with --resume {result.run_dir}")
    lines.append(f"{'results':<12}{result.run_dir}")
    return lines


def _rank_lines(result: Result) -> list[str]:
    """What each rank did."""
    rows = [["rank", "share", "samples/s", "busy", "waiting"]]
    for entry in result.ranks:
        whole = entry["busy_seconds"] + entry["waiting_seconds"]
        idle = entry["waiting_seconds"] / whole if whole else 0.0
        rows.append(
            [
                str(entry["rank"]),
                f"{entry['share']:.1%}",
                f"{entry['samples_per_second']:,.0f}",
                f"{entry['busy_seconds']:.2f} s",
                f"{entry['waiting_seconds']:.2f} s ({idle:.0%})",
            ]
        )
    throughput = f"{'throughput':<12}{result.samples_per_second:,.0f} samples/s"
    return [throughput, "", *aligned(rows), ""]


def _balance_lines(result: Result) -> list[str]:
    """What equal shares would have cost, if there were several ranks."""
    balance = result.balance
    if len(result.ranks) < 2 or not balance.get("seconds"):
        return []
    ratio = balance["equal_seconds"] / balance["seconds"]
    changes = f"{balance['changes']} change" + ("" if balance["changes"] == 1 else "s") + " of plan"
    return [
        f"{'shares':<12}the last rank computed for {balance['seconds']:.2f} s, with equal shares "
        f"it would be {balance['equal_seconds']:.2f} s ({ratio:.2f}x); {changes}"
    ]
