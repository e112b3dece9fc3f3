"""`hpc-train data verify PATH`: every checksum."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from hpc_train.cli.data_import import num_shards
from hpc_train.cli.progress import Bar
from hpc_train.cli.report import human_bytes, json_option, print_json
from hpc_train.errors import EXIT_DONE, EXIT_FAILED

if TYPE_CHECKING:
    from hpc_train.data.verify import Damage, Verification


@click.command(name="verify")
@click.argument("path")
@json_option
def command(path: str, as_json: bool) -> int:
    """Check every chunk of PATH against its checksum, and every shard against the index.

    Leaves with 1 if there is damage. Of HDF5 files without checksums it is only checked that
    everything can be read.
    """
    from hpc_train.data.dataset import locate
    from hpc_train.data.verify import count_shards, verify

    place = locate(path)
    with Bar(count_shards(place), "shards") as told:
        found = verify(place, told)
    if as_json:
        print_json({**dataclasses.asdict(found), "is_good": found.is_good})
    else:
        click.echo("\n".join(_lines(found)))
    return EXIT_DONE if found.is_good else EXIT_FAILED


def _lines(found: Verification) -> list[str]:
    shards = num_shards(found.num_shards)
    how = "every checksum matches" if found.has_checksums else "no checksums, all can be read"
    if found.is_good:
        return [
            f"{found.path}: good: {how} ({shards}, {found.num_chunks:,} chunks, "
            f"{human_bytes(found.num_bytes)})"
        ]
    bad = len({damage.shard for damage in found.damages})
    return [
        *(_line(damage) for damage in found.damages),
        f"{found.path}: damaged: {bad:,} of {shards}",
        "hint: restore these shards from a copy, or import the data again",
    ]


def _line(damage: Damage) -> str:
    place = damage.shard
    if damage.field:
        place += f", {damage.field}"
    if damage.chunk is not None:
        place += f", chunk {damage.chunk}"
    if damage.rows:
        place += f" (rows {damage.rows[0]}..{damage.rows[1] - 1})"
    return f"{place}: {damage.problem}"
