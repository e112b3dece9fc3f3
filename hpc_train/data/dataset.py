"""Data sets as users name them: a folder, an HDF5 file, several, or what ships with the package.

digits/train            a folder with an index
images.h5               any HDF5 file, or a folder or a pattern of such files
builtin:digits/train    a data set that ships with the package
PATH[1000:2000]         samples 1000 .. 1999 of PATH, either end may be left out
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hpc_train.data.blocks import Blocks, Extent
from hpc_train.data.index import NAME, FieldInfo, Index
from hpc_train.data.scan import cached_scan
from hpc_train.data.windows import Windows
from hpc_train.errors import DataError, unknown
from hpc_train.world import Group, on_coordinator

BUILTIN = Path(__file__).parent.parent / "recipes" / "data"
_RANGE = re.compile(r"^(?P<path>.*)\[(?P<start>\d*):(?P<stop>\d*)\]$")


@dataclass(frozen=True)
class Dataset:
    """Samples [start, stop) of the shards of an index, renumbered from 0.

    Attributes:
        name: how the user called it.
        root: the folder that shards are relative to.
        start, stop: rows of the shards; each is a sample, unless there are `windows`.
        windows: samples are windows of these rows.
    """

    name: str
    root: Path
    index: Index
    start: int
    stop: int
    windows: Windows | None = None

    @property
    def num_samples(self) -> int:
        """Number of samples."""
        rows = self.stop - self.start
        return rows if self.windows is None else self.windows.count(rows)

    @property
    def fields(self) -> dict[str, FieldInfo]:
        """The fields of a sample; of a window, as inputs and targets have them."""
        fields = self.index.fields
        if self.windows is None:
            return fields
        rows = self.windows.rows
        return {name: replace(info, shape=(rows, *info.shape)) for name, info in fields.items()}

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample, over all fields."""
        return sum(info.sample_bytes for info in self.fields.values())

    def extents(self) -> list[Extent]:
        """The rows of each shard that belong to it, in order."""
        found, base = [], 0
        for number, shard in enumerate(self.index.shards):
            first, stop = max(self.start - base, 0), min(self.stop - base, shard.samples)
            if first < stop:
                found.append(Extent(number, first, stop, shard.block_rows))
            base += shard.samples
        return found

    def blocks(self) -> Blocks:
        """The samples that are read together."""
        extents = self.extents()
        return Blocks(extents if self.windows is None else self.windows.extents(extents))

    def path(self, shard: int) -> Path:
        """The file of a shard."""
        return self.root / self.index.shards[shard].file

    def require(self, names: Sequence[str]) -> None:
        """Check that every name is a field.

        Raises:
            DataError: naming the fields that there are.
        """
        for name in names:
            if name not in self.fields:
                raise DataError(unknown("dataset", name, self.fields), where=self.name)

    def describe(self) -> dict[str, Any]:
        """All of it as JSON, for other ranks."""
        return {
            "name": self.name,
            "root": str(self.root),
            "index": self.index.to_json(),
            "range": [self.start, self.stop],
            "windows": None if self.windows is None else asdict(self.windows),
        }

    @classmethod
    def from_description(cls, description: dict[str, Any]) -> Dataset:
        """What `describe` told of."""
        index = Index.from_json(description["index"], description["name"])
        start, stop = description["range"]
        windows = Windows(**description["windows"]) if description["windows"] else None
        return cls(description["name"], Path(description["root"]), index, start, stop, windows)


def open_dataset(
    name: str, fields: Sequence[str], block_rows: int, windows: Windows | None = None
) -> Dataset:
    """The data set that a user calls `name`, with the fields `fields`.

    Args:
        name: as described at the top of this file.
        fields: names of the HDF5 datasets that are needed.
        block_rows: rows that are read together where a file is not chunked.
        windows: what a sample is, if it is not a row.

    Raises:
        DataError: if it is missing, empty, unreadable, or lacks a field.
    """
    found = _RANGE.match(name)
    path = place_of(name)
    if (path / NAME).is_file():
        root, index = path, Index.read(path)
    else:
        root = path if path.is_dir() else path.parent
        index = cached_scan(path, fields, block_rows)
    start = int(found["start"] or 0) if found else 0
    stop = int(found["stop"] or index.num_samples) if found else index.num_samples
    if not 0 <= start < stop <= index.num_samples:
        if index.num_samples == 0:
            raise DataError("data set holds no samples", where=name)
        raise DataError(
            f"range must lie within the {index.num_samples} samples there are", where=name
        )
    dataset = Dataset(name, root.absolute(), index, start, stop, windows)
    dataset.require(fields)
    if windows is not None:
        windows.check(stop - start, name)
    return dataset


def share_dataset(
    group: Group,
    name: str,
    fields: Sequence[str],
    block_rows: int,
    windows: Windows | None = None,
    complete: Callable[[Dataset], Dataset] | None = None,
) -> Dataset:
    """`open_dataset` on rank 0 for all: thousands of ranks do not open thousands of files.

    What `complete` adds to the index there, all have.
    """

    def describe() -> dict[str, Any]:
        dataset = open_dataset(name, fields, block_rows, windows)
        return (complete(dataset) if complete else dataset).describe()

    return Dataset.from_description(on_coordinator(group, describe))


def place_of(name: str) -> Path:
    """The folder, file or pattern behind the name of a data set, without its range."""
    found = _RANGE.match(name)
    return locate(found["path"] if found else name)


def locate(text: str) -> Path:
    """The path behind a name; `builtin:` stands for what ships with the package."""
    if not text.startswith("builtin:"):
        path = Path(text).expanduser()
        if not path.exists() and not any(sign in text for sign in "*?["):
            raise DataError(
                "no such file or folder",
                where=text,
                hint=f"paths begin at {Path.cwd()}; `hpc-train data import` makes data sets",
            )
        return path
    path = BUILTIN / text.removeprefix("builtin:")
    if not (path / NAME).is_file():
        names = [str(p.parent.relative_to(BUILTIN)) for p in BUILTIN.rglob(NAME)]
        raise DataError(unknown("built-in data set", text.removeprefix("builtin:"), names))
    return path
