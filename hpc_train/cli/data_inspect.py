"""`hpc-train data inspect PATH`: what a data set holds, and whether it will be read fast."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from hpc_train.cli.data_import import num_shards
from hpc_train.cli.report import human_bytes, json_option, print_json
from hpc_train.cli.table import aligned

if TYPE_CHECKING:
    from hpc_train.data.inspect import FieldReport, Report

_MOST_SHARDS = 8
_MOST_CLASSES = 12


@click.command(name="inspect")
@click.argument("path")
@json_option
def command(path: str, as_json: bool) -> None:
    """Show shards, fields, storage and class balance of PATH, and whether reading will be fast.

    PATH is a data set, an HDF5 file, or a folder or pattern of HDF5 files.
    """
    from hpc_train.data.dataset import locate
    from hpc_train.data.inspect import inspect

    report = inspect(locate(path))
    if as_json:
        print_json({**dataclasses.asdict(report), "is_fast": report.is_fast})
    else:
        click.echo("\n".join(_lines(report)))


def _lines(report: Report) -> list[str]:
    size = sum(shard.num_bytes for shard in report.shards)
    samples = f"{report.num_samples:,}" if report.num_samples >= 0 else "datasets differ in length"
    kind = "data set" if report.is_dataset else "HDF5 files without an index"
    lines = [f"{report.path}: {kind}", f"samples    {samples}"]
    if report.source:
        lines.append(f"source     {report.source}")
    if report.licence:
        lines.append(f"licence    {report.licence}")
    lines.append(f"checksums  {'yes' if report.has_checksums else 'none'}")
    lines += [
        "",
        f"{num_shards(len(report.shards))}, {human_bytes(size)}",
        *_shard_lines(report),
        "",
    ]
    lines += aligned([_HEAD, *(_row(n, f) for n, f in report.fields.items())], left=(0, 1, 2, 3, 4))
    for name, field in report.fields.items():
        if field.balance:
            lines += ["", f"classes of {name}", *_balance_lines(field.balance)]
    return [*lines, "", *_speed_lines(report)]


_HEAD = ["field", "dtype", "shape", "chunks", "compression", "range"]


def _row(name: str, field: FieldReport) -> list[str]:
    stored, info = field.stored, field.info
    shape = "x".join(map(str, stored.shape[1:])) or "scalar"
    chunks = "x".join(map(str, stored.chunks)) if stored.chunks else "contiguous"
    span = f"{info.low} .. {info.high}" if info and info.low is not None else ""
    if info is None:
        shape, span = "x".join(map(str, stored.shape)) or "no axes", "not usable as a field"
    return [name, stored.dtype, shape, chunks, stored.compression or "none", span]


def _shard_lines(report: Report) -> list[str]:
    shown = report.shards[:_MOST_SHARDS]
    rows = [
        [
            f"  {s.file}",
            f"{s.samples:,} samples" if s.samples >= 0 else "",
            human_bytes(s.num_bytes),
        ]
        for s in shown
    ]
    more = len(report.shards) - len(shown)
    return aligned(rows) + ([f"  ... and {more:,} more"] if more else [])


def _balance_lines(balance: dict[str, int]) -> list[str]:
    whole = max(1, sum(balance.values()))
    entries = list(balance.items())
    rows = [
        [
            f"  {name if name.isprintable() and name.strip() else repr(name)}",
            f"{count:,}",
            f"{count / whole:.1%}",
        ]
        for name, count in entries[:_MOST_CLASSES]
    ]
    more = len(entries) - _MOST_CLASSES
    low, high = min(balance.values()), max(balance.values())
    tail = [f"  ... and {more:,} more, {low:,} to {high:,} samples each"] if more > 0 else []
    return aligned(rows) + tail


def _speed_lines(report: Report) -> list[str]:
    lines = ["reading will be " + ("fast" if report.is_fast else "slow")]
    for name, field in report.fields.items():
        if field.advice:
            lines.append(f"  {name}: {field.advice.reason}")
    if not report.is_fast:
        usable = [n for n, f in report.fields.items() if f.info] if not report.is_dataset else []
        names = "".join(f" --inputs {name}" for name in usable)
        lines.append(f"hint: repack with `hpc-train data import {report.path} NEW{names}`")
    return lines
