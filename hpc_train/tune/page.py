"""The report of a study as one HTML page, its plots drawn into it as SVG; nothing is fetched."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from hpc_train.tune.report import positions

_WIDTH, _HEIGHT, _EDGE = 860, 300, 40
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 900px; margin: 2em auto; color: #222 }
table { border-collapse: collapse } td, th { padding: 3px 12px; text-align: right }
th { border-bottom: 1px solid #999 } td:last-child, th:last-child { text-align: left }
svg { width: 100%; height: auto } text { font: 11px system-ui, sans-serif; fill: #555 }
.complete { stroke: #2a7ab9 } .pruned { stroke: #d8a13a } .failed { stroke: #c0392b }
.waiting { stroke: #999 } text.inside { fill: #fff; font-size: 9px }
b { font-weight: 600; margin-right: 1em } b.complete { color: #2a7ab9 } b.pruned { color: #d8a13a }
b.failed { color: #c0392b } b.waiting { color: #999 } b.best { color: #1b7f3b }
.best { stroke: #1b7f3b; stroke-width: 2.5 }
rect.complete { fill: #2a7ab9 } rect.pruned { fill: #d8a13a } rect.failed { fill: #c0392b }
rect.waiting { fill: #999 } polyline { fill: none; stroke-opacity: .6 } .axis { stroke: #bbb }
"""


def page(name: str, told: dict[str, Any]) -> str:
    """A self-contained HTML page.

    Args:
        name: of the study.
        told: what `report` gave.
    """
    metric = told["metrics"][0]
    sections = [
        f"<h1>{_text(name)}</h1><p>{_text(_summary(told))}</p>" + _legend(told),
        "<h2>Best trials</h2>" + _table(told),
        "<h2>Importance of parameters</h2>" + _importance(told["importance"]),
        f"<h2>Learning curves: {_text(metric)}</h2>" + _curves(told),
        "<h2>Parallel coordinates</h2>" + _parallel(told),
        "<h2>Who trained what, when</h2>" + _timeline(told),
    ]
    failed = [row for row in told["trials"] if row["state"] == "failed"]
    if failed:
        lines = [f"<li>trial {r['trial']}: {_text(r['reason'])}</li>" for r in failed]
        sections.append(f"<h2>Failed trials</h2><ul>{''.join(lines)}</ul>")
    body = "\n".join(sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{_text(name)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>{body}</body></html>\n"
    )


def _summary(told: dict[str, Any]) -> str:
    counts = ", ".join(f"{count} {state}" for state, count in told["counts"].items())
    text = f"{told['status']}; trials: {counts}"
    if told["utilisation"] is not None:
        text += f"; ranks busy {told['utilisation']:.0%} of the time"
    return text


def _legend(told: dict[str, Any]) -> str:
    """What the colours say, of states that there are."""
    names = ["best", *told["counts"]] if told["best"] else [*told["counts"]]
    return "<p>" + " ".join(f'<b class="{name}">{name}</b>' for name in names) + "</p>"


def _table(told: dict[str, Any]) -> str:
    if not told["best"]:
        return "<p>No trial is complete.</p>"
    head = "".join(f"<th>{_text(name)}</th>" for name in ["trial", *told["metrics"], "settings"])
    rows = []
    for one in told["best"]:
        values = "".join(f"<td>{value:.5g}</td>" for value in one["values"])
        rows.append(f"<tr><td>{one['trial']}</td>{values}<td>{_settings(one['params'])}</td></tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _settings(params: dict[str, Any]) -> str:
    return _text("  ".join(f"{key} = {_short(value)}" for key, value in params.items()))


def _importance(found: dict[str, float]) -> str:
    if not found:
        return "<p>Needs four complete trials.</p>"
    bars = []
    for number, (key, value) in enumerate(found.items()):
        y = 22 * number
        bars.append(
            f'<text x="0" y="{y + 15}">{_text(key)}</text>'
            f'<rect class="complete" x="260" y="{y + 4}" width="{540 * value:.1f}" height="14"/>'
            f'<text x="{266 + 540 * value:.1f}" y="{y + 15}">{value:.2f}</text>'
        )
    return _svg(bars, 22 * len(found))


def _curves(told: dict[str, Any]) -> str:
    rows = [
        (row, [(int(step), values[0]) for step, values in row["reports"].items() if values])
        for row in told["trials"]
    ]
    points = [(step, value) for _, line in rows for step, value in line if value is not None]
    if not points:
        return "<p>No trial was evaluated.</p>"
    steps, values = [p[0] for p in points], [p[1] for p in points]
    drawn = [_axes(min(values), max(values), min(steps), max(steps))]
    best = told["best"][0]["trial"] if told["best"] else None
    for row, line in rows:
        places = [
            (_across(s, min(steps), max(steps)), _up(v, min(values), max(values)))
            for s, v in line
            if v is not None
        ]
        drawn.append(_polyline(places, "best" if row["trial"] == best else row["state"], row))
    return _svg(drawn)


def _parallel(told: dict[str, Any]) -> str:
    rows = [row for row in told["trials"] if row["values"]]
    keys = list(dict.fromkeys(key for row in rows for key in row["params"]))
    if not rows or not keys:
        return "<p>No trial has ended.</p>"
    columns = [positions([row["params"].get(key) for row in rows]) for key in keys]
    columns.append(positions([row["values"][0] for row in rows]))
    xs = [_across(place, 0, len(keys)) for place in range(len(keys) + 1)]
    drawn = []
    for x, name in zip(xs, [*keys, told["metrics"][0]], strict=True):
        drawn.append(
            f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_EDGE}" y2="{_HEIGHT - _EDGE}"/>'
            f'<text x="{x:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{_text(name)}</text>'
        )
    for x, key in zip(xs, keys, strict=False):
        drawn += _ends(x, [row["params"].get(key) for row in rows])
    drawn += _ends(xs[-1], [row["values"][0] for row in rows])
    best = told["best"][0]["trial"] if told["best"] else None
    for number, row in enumerate(rows):
        # a parameter that the trial does not have lies below the axis
        places = [
            (x, _up(max(float(c[number]), -0.1), 0, 1)) for x, c in zip(xs, columns, strict=True)
        ]
        drawn.append(_polyline(places, "best" if row["trial"] == best else row["state"], row))
    return _svg(drawn)


def _ends(x: float, values: Sequence[Any]) -> list[str]:
    """Names of the values at an axis: all choices, or the smallest and largest number."""
    places = positions(values)
    named = {f"{place:.4f}": value for place, value in zip(places, values, strict=True)}
    numbers = all(isinstance(v, int | float) for v in values if v is not None)
    shown = {place: v for place, v in named.items() if not numbers or float(place) in (0.0, 1.0)}
    return [
        f'<text x="{x + 4:.1f}" y="{_up(max(float(place), -0.1), 0, 1) - 3:.1f}">'
        f"{_text(_short(value) if value is not None else 'none')}</text>"
        for place, value in shown.items()
    ]


def _timeline(told: dict[str, Any]) -> str:
    """One lane a rank; the time between two sessions is left out."""
    parts = [(row, part) for row in told["trials"] for part in row["parts"] if part["stop"]]
    if not parts:
        return "<p>Nothing was trained.</p>"
    offsets, length = _offsets(told["sessions"], [part for _, part in parts])
    lanes = 1 + max(rank for _, part in parts for rank in part["ranks"])
    height = 20
    drawn = [
        f'<text x="0" y="{height * rank + 14}">rank {rank}</text>' for rank in range(min(lanes, 64))
    ]
    for row, part in parts:
        shift = max(offset for start, offset in offsets if start <= part["start"])
        x = 60 + 780 * (part["start"] - shift) / length
        width = max(1.0, 780 * (part["stop"] - part["start"]) / length - 1)
        for rank in part["ranks"]:
            if rank < 64:
                drawn.append(
                    f'<rect class="{row["state"]}" x="{x:.1f}" y="{height * rank + 2}" '
                    f'width="{width:.1f}" height="{height - 4}"><title>{_title(row)}</title></rect>'
                )
                if width > 20:
                    drawn.append(
                        f'<text class="inside" x="{x + 3:.1f}" y="{height * rank + 13}">'
                        f"{row['trial']}</text>"
                    )
    foot = height * min(lanes, 64) + 16
    drawn.append(f'<text x="60" y="{foot}">0 s; numbers are those of trials</text>')
    drawn.append(f'<text x="840" y="{foot}" text-anchor="end">{length:.0f} s</text>')
    return _svg(drawn, height * min(lanes, 64) + 20)


def _offsets(
    sessions: Sequence[dict[str, Any]], parts: Sequence[dict[str, Any]]
) -> tuple[list[tuple[float, float]], float]:
    """For each session its start and what is taken from its times; and the length of all."""
    found, length = [], 0.0
    for session in sessions:
        later = [other["start"] for other in sessions if other["start"] > session["start"]]
        stop = min(later, default=float("inf"))
        ends = [part["stop"] for part in parts if session["start"] <= part["start"] < stop]
        found.append((session["start"], session["start"] - length))
        length += max(ends, default=session["start"]) - session["start"]
    return found, max(length, 1e-9)


def _across(value: float, low: float, high: float) -> float:
    return 60 + (_WIDTH - 120) * (value - low) / max(high - low, 1e-12)


def _up(value: float, low: float, high: float) -> float:
    return _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * (value - low) / max(high - low, 1e-12)


def _axes(low: float, high: float, first: float, last: float) -> str:
    return (
        f'<line class="axis" x1="60" x2="{_WIDTH - 60}" y1="{_HEIGHT - _EDGE}" '
        f'y2="{_HEIGHT - _EDGE}"/><text x="0" y="{_EDGE + 4}">{high:.4g}</text>'
        f'<text x="0" y="{_HEIGHT - _EDGE + 4}">{low:.4g}</text>'
        f'<text x="60" y="{_HEIGHT - 20}">evaluation {first:g}</text>'
        f'<text x="{_WIDTH - 60}" y="{_HEIGHT - 20}">{last:g}</text>'
    )


def _polyline(places: Iterable[tuple[float, float]], style: str, row: dict[str, Any]) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline class="{style}" points="{points}"><title>{_title(row)}</title></polyline>'


def _title(row: dict[str, Any]) -> str:
    values = ", ".join(f"{value:.5g}" for value in row["values"])
    return _text(f"trial {row['trial']} ({row['state']}) {values}  ") + _settings(row["params"])


def _svg(parts: Sequence[str], height: int = _HEIGHT) -> str:
    return f'<svg viewBox="0 0 {_WIDTH} {height}">{"".join(parts)}</svg>'


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value)


def _text(text: str) -> str:
    return html.escape(str(text))
