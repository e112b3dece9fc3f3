"""Kinds of data that can be imported: one file each, and the dictionary of them."""

from __future__ import annotations

from pathlib import Path

from hpc_train.data.sources import csv, hdf5, idx, images, npy, text
from hpc_train.data.sources.source import Kind, Options, Source
from hpc_train.errors import DataError, UsageError, nearest, unknown

__all__ = ["SOURCES", "Options", "Source", "detect", "open_source"]

# the order in which they are tried
SOURCES: dict[str, Kind] = {
    "hdf5": hdf5.KIND,
    "npy": npy.KIND,
    "csv": csv.KIND,
    "idx": idx.KIND,
    "text": text.KIND,
    "images": images.KIND,
}


def open_source(kind: str, path: Path, options: Options | None = None) -> Source:
    """The source at `path`.

    Args:
        kind: a name of `SOURCES`, or "auto" to tell it from the path.
        path: file or folder; kinds whose files have patterns of names take these, too.
        options: what the kind shall do; those that it does not take are refused.

    Raises:
        UsageError: if kind or options are unknown or do not fit.
        DataError: if there is nothing, no sample, or something else, at `path`.
    """
    options = options or Options()
    name = detect(path) if kind == "auto" else kind
    if name not in SOURCES:
        raise UsageError(unknown("kind", name, [*SOURCES, "auto"]))
    found = SOURCES[name]
    for option in options.given():
        if option not in found.options:
            takes = ", ".join(f"--{known}" for known in sorted(found.options)) or "none"
            raise UsageError(
                f"--{option} does not apply to the kind {name} (options of {name}: {takes})",
                where=str(path),
            )
    source = found.open(path, options)
    if source.num_samples == 0:
        raise DataError("there must be samples (samples: 0)", where=str(path))
    return source


def detect(path: Path) -> str:
    """The kind of what lies at `path`.

    Raises:
        DataError: if there is nothing, or nothing that is known.
    """
    for name, kind in SOURCES.items():
        if kind.matches(path):
            return name
    if not path.exists():
        raise DataError("no such file or folder", where=str(path), hint=_similar(path))
    raise DataError(
        "cannot tell the kind of data from the path",
        where=str(path),
        hint=f"--kind {'|'.join(sorted(SOURCES))}",
    )


def _similar(path: Path) -> str | None:
    folder = path.parent
    names = sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    like = nearest(path.name, names)
    return f"did you mean {folder / like}?" if like else None
