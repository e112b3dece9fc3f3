"""`hpc-train data split SOURCE DEST`: train, validation and test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_train.cli.data_import import layout_options, plan_lines, written_line
from hpc_train.cli.progress import Bar, interruptible
from hpc_train.cli.report import dry_run_option
from hpc_train.errors import UsageError

if TYPE_CHECKING:
    from hpc_train.data.sources import Source


@click.command(name="split")
@click.argument("source")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--train", metavar="SHARE", help="Fraction such as 0.8, or count such as 8000.")
@click.option("--validation", metavar="SHARE", help="Likewise.")
@click.option("--test", metavar="SHARE", help="Likewise.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--stratify", metavar="FIELD", help="Keep the proportions of this label in all.")
@click.option("--sequential", is_flag=True, help="Cut as samples lie, without randomness.")
@layout_options
@dry_run_option
def command(
    source: str,
    dest: Path,
    seed: int,
    stratify: str | None,
    sequential: bool,
    overwrite: bool,
    dry_run: bool,
    samples_per_shard: int | None,
    **options: Any,
) -> None:
    """Divide SOURCE into the data sets DEST/train, DEST/validation and DEST/test.

    Each sample goes to exactly one of them, at random by the seed. Without shares they get 0.8,
    0.1 and 0.1; a part without a share is not written.

    \b
    hpc-train data split mnist parts --train 0.9 --test 0.1 --stratify label
    hpc-train data split mnist parts --train 8000 --test 2000 --sequential
    """
    from hpc_train.data import split
    from hpc_train.data.dataset import locate
    from hpc_train.data.place import check_destination
    from hpc_train.data.sources import open_source

    if stratify and sequential:
        raise UsageError("only one of --stratify and --sequential can be given")
    shares = _shares({part: options.pop(part) for part in split.PARTS})
    for part in shares:
        check_destination(dest / part, overwrite=overwrite)
    opened = open_source("hdf5", locate(source))
    counts = split.count_samples(opened.num_samples, shares)
    if dry_run:
        _preview(opened, dest, counts, options | {"samples_per_shard": samples_per_shard})
        return
    labels = split.labels_of(opened, stratify) if stratify else None
    with interruptible(), Bar(opened.num_samples, "samples") as told:
        written = split.write_parts(
            opened,
            dest,
            list(counts),
            split.assign(counts, seed, sequential=sequential, labels=labels),
            note=_note(seed, stratify, sequential=sequential),
            samples_per_shard=dict.fromkeys(counts, samples_per_shard),
            overwrite=overwrite,
            told=told,
            **options,
        )
    for part, index in written.items():
        click.echo(written_line(dest / part, index.num_samples, len(index.shards)))


def _note(seed: int, stratify: str | None, *, sequential: bool) -> str:
    """How the data were divided, for their indices."""
    how = "in order" if sequential else f"random, seed {seed}"
    return f"split {how}" + (f", stratified by {stratify}" if stratify else "")


def _preview(source: Source, dest: Path, counts: Mapping[str, int], layout: Any) -> None:
    """Show what would be written."""
    from hpc_train.data.layout import plan_layout

    fields = source.fields()
    for part, count in counts.items():
        plan = plan_layout(fields, count, **layout)
        click.echo("\n".join([*plan_lines(dest / part, fields, count, plan), ""]))


def _shares(texts: dict[str, str | None]) -> dict[str, float]:
    """The shares that were asked for: whole numbers are counts, others fractions."""
    if all(text is None for text in texts.values()):
        return {"train": 0.8, "validation": 0.1, "test": 0.1}
    shares: dict[str, float] = {}
    for part, text in texts.items():
        try:
            value = 0 if text is None else int(text) if text.isdecimal() else float(text)
        except ValueError:
            raise UsageError(
                f'--{part} must be a fraction or a count (value: "{text}")',
                hint="--train 0.8 --test 0.2, or --train 8000 --test 2000",
            ) from None
        if value != 0:
            shares[part] = value
    return shares
