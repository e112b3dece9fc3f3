"""What reporting commands share: one JSON document on standard output, and byte counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

SCHEMA_VERSION = 1

F = TypeVar("F", bound=Callable[..., Any])


def json_option(function: F) -> F:
    """`--json`, as the argument `as_json`; HPC_TRAIN_JSON=1 stands for it in all commands."""
    option = click.option(
        "--json",
        "as_json",
        is_flag=True,
        envvar="HPC_TRAIN_JSON",
        help="Print one JSON document.",
    )
    return option(function)


def dry_run_option(function: F) -> F:
    """`--dry-run`, as the argument `dry_run`."""
    return click.option(
        "--dry-run", is_flag=True, help="Show what would be done, and change nothing."
    )(function)


def print_json(document: dict[str, Any]) -> None:
    """Print `document` with its `schema_version`."""
    click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **document}, indent=2))


def human_bytes(count: float) -> str:
    """`count` bytes with a binary unit: 1536 is "1.5 KiB"."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
