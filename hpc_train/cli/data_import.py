"""`hpc-train data import SOURCE DEST`: HDF5 shards from other files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_train.cli.progress import Bar, interruptible
from hpc_train.cli.report import dry_run_option, human_bytes
from hpc_train.cli.table import aligned
from hpc_train.errors import UsageError

if TYPE_CHECKING:
    from hpc_train.data.index import FieldInfo
    from hpc_train.data.layout import Layout
    from hpc_train.data.sources import Source


_MOST_CHANNELS = 4  # whose statistics are shown


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Height and width of "32x48"."""
    if value is None:
        return None
    found = re.fullmatch(r"(\d+)x(\d+)", value)
    if found is None or 0 in (int(found[1]), int(found[2])):
        raise UsageError(f'--size must read HEIGHTxWIDTH, such as 32x32 (value: "{value}")')
    return int(found[1]), int(found[2])


def layout_options(function: Any) -> Any:
    """The options that say how a data set is laid out in files."""
    for option in (
        click.option("--overwrite", is_flag=True, help="Replace a data set at the destination."),
        click.option("--samples-per-shard", type=int, help="Default: about 256 MiB per shard."),
        click.option("--chunk-rows", type=int, help="Default: a power of two, at most 1 MiB."),
        click.option("--compression", default="none", metavar="none|gzip|lzf", show_default=True),
    ):
        function = option(function)
    return function


@click.command(name="import")
@click.argument("source")
@click.argument("dest", type=click.Path(path_type=Path))
@click.option("--kind", default="auto", metavar="hdf5|npy|csv|idx|text|images", help="Of SOURCE.")
@click.option("--inputs", multiple=True, help="hdf5, npy: an array to take; can be repeated.")
@click.option("--targets", multiple=True, help="hdf5, npy: an array to take; can be repeated.")
@click.option("--target", metavar="COLUMN", help="csv: the column to be predicted.")
@click.option("--labels", metavar="FILE|none", help="idx: labels, if not beside the images.")
@click.option("--size", metavar="HxW", callback=_size, help="images: resize all.")
@click.option("--mode", metavar="L|RGB", help="images: grey or colour; default: as the first.")
@click.option("--tokens", metavar="bytes|characters", help="text: default is characters.")
@click.option("--licence", default="", help="Terms of the data, noted in the index.")
@layout_options
@dry_run_option
def command(
    source: str,
    dest: Path,
    kind: str,
    licence: str,
    compression: str,
    chunk_rows: int | None,
    samples_per_shard: int | None,
    overwrite: bool,
    dry_run: bool,
    **options: Any,
) -> None:
    """Make a data set DEST of HDF5 shards from SOURCE.

    \b
    SOURCE is one of
      hdf5    HDF5 files (a file, folder or pattern), or a data set
      npy     .npy, a folder of them, or .npz
      csv     a .csv or .tsv table with a header
      idx     images in the format of MNIST, .gz too
      text    plain text, as tokens
      images  a folder with one sub-folder of images per class

    \b
    hpc-train data import t10k-images-idx3-ubyte.gz mnist
    hpc-train data import flowers.csv flowers --target species
    hpc-train data import old.h5 new --inputs images --targets labels
    """
    from hpc_train.data.dataset import locate
    from hpc_train.data.layout import plan_layout
    from hpc_train.data.place import check_destination
    from hpc_train.data.sources import Options, open_source

    check_destination(dest, overwrite=overwrite)
    opened = open_source(kind, locate(source), Options(**options))
    fields = opened.fields()
    layout = plan_layout(
        fields,
        opened.num_samples,
        chunk_rows=chunk_rows,
        samples_per_shard=samples_per_shard,
        compression=compression,
    )
    if dry_run:
        click.echo("\n".join(plan_lines(dest, fields, opened.num_samples, layout)))
        return
    _write(opened, dest, layout, licence, overwrite=overwrite)


def _write(source: Source, dest: Path, layout: Layout, licence: str, *, overwrite: bool) -> None:
    from hpc_train.data.writer import ShardWriter

    writer = ShardWriter(
        dest,
        source.fields(),
        layout,
        source=source.source,
        licence=licence or source.licence,
        overwrite=overwrite,
    )
    with interruptible(), Bar(source.num_samples, "samples") as told, writer:
        for batch in source.batches(layout.chunk_rows):
            writer.append(batch)
            told(writer.num_samples)
    click.echo(written_line(dest, writer.num_samples, len(writer.index.shards)))
    for name, info in writer.index.fields.items():
        if info.mean:
            click.echo(f"  {name}: mean and deviation {statistics_told(info)}")


def plan_lines(
    dest: Path, fields: Mapping[str, FieldInfo], num_samples: int, layout: Layout
) -> list[str]:
    """What would be written, for people."""
    rows = [["field", "dtype", "shape", "bytes per sample"]]
    for name, info in fields.items():
        shape = "x".join(map(str, info.shape)) or "scalar"
        rows.append([name, info.dtype, shape, f"{info.sample_bytes:,}"])
    shards = layout.shard_sizes(num_samples)
    whole = num_samples * sum(info.sample_bytes for info in fields.values())
    compressed = "" if layout.compression == "none" else f" before {layout.compression}"
    return [
        f"would write {dest}",
        f"samples  {num_samples:,}",
        f"chunks   {layout.chunk_rows:,} samples",
        f"shards   {len(shards):,} of at most {max(shards, default=0):,} samples",
        f"size     {human_bytes(whole)}{compressed}",
        "",
        *aligned(rows, left=(0, 1, 2)),
    ]


def written_line(dest: Path, num_samples: int, shards: int) -> str:
    """What was written, for people."""
    size = sum(file.stat().st_size for file in dest.iterdir())
    return f"wrote {dest}: {num_samples:,} samples in {num_shards(shards)}, {human_bytes(size)}"


def statistics_told(info: FieldInfo) -> str:
    """Mean and standard deviation of the channels of a field, such as "0.48 0.22, 0.45 0.21"."""
    told = [f"{mean:.4g} {std:.4g}" for mean, std in zip(info.mean, info.std, strict=True)]
    more = len(told) - _MOST_CHANNELS
    return ", ".join(told[:_MOST_CHANNELS]) + (f", and {more:,} more" if more > 0 else "")


def num_shards(count: int) -> str:
    """ "1 shard", "2 shards"."""
    return f"{count:,} shard{'s' if count != 1 else ''}"
