"""The index of a data set: its fields and its shards in order, as `index.json` beside them.

    sample id   0 .. n0-1        n0 .. n0+n1-1         ...
    shard       shard-00000.h5   shard-00001.h5        ...      (order of the list)
    row         0 .. n0-1        0 .. n1-1

The index says all that is needed to plan a run without opening a shard.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hpc_train.errors import DataError

FORMAT = "hpc_train dataset"
VERSION = 1
NAME = "index.json"


@dataclass(frozen=True)
class FieldInfo:
    """One field of a sample.

    Attributes:
        shape: shape of one sample; images are (channels, height, width).
        dtype: NumPy's name of the stored type, such as "uint8".
        low, high: smallest and largest value of a scalar integer field, else None.
        classes: names of the classes 0, 1, ... where they have names.
        mean, std: of each channel over all samples (statistics.py), empty where not known.
    """

    shape: tuple[int, ...]
    dtype: str
    low: int | None = None
    high: int | None = None
    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    @property
    def num_classes(self) -> int | None:
        """How many classes a label field has, if it can be one."""
        if self.classes:
            return len(self.classes)
        return None if self.high is None else self.high + 1


@dataclass(frozen=True)
class Shard:
    """One HDF5 file: its path relative to the index, its samples, and the rows of its blocks."""

    file: str
    samples: int
    block_rows: int

    def __post_init__(self) -> None:
        if self.samples < 0 or self.block_rows < 1:
            raise ValueError(f"samples must be >= 0 and block_rows >= 1 ({self})")


@dataclass(frozen=True)
class Index:
    """Fields by name and shards in order.

    `source` says where the data came from, `licence` under which terms.
    """

    fields: dict[str, FieldInfo]
    shards: tuple[Shard, ...]
    source: str = ""
    licence: str = ""
    sidecar: dict[str, Any] = field(default_factory=dict)

    @property
    def num_samples(self) -> int:
        """Samples of all shards."""
        return sum(shard.samples for shard in self.shards)

    def to_json(self) -> dict[str, Any]:
        """The index as a JSON document."""
        return {
            "format": FORMAT,
            "format_version": VERSION,
            "fields": {name: _field_to_json(info) for name, info in self.fields.items()},
            "shards": [
                {"file": s.file, "samples": s.samples, "block_rows": s.block_rows}
                for s in self.shards
            ],
            "source": self.source,
            "licence": self.licence,
            "sidecar": self.sidecar,
        }

    @classmethod
    def from_json(cls, document: Any, where: str) -> Index:
        """The index that a document holds.

        Raises:
            DataError: if it is not an index, or of a version that is not known.
        """
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise DataError("not an index of a data set", where=where)
        if document.get("format_version") != VERSION:
            raise DataError(
                f"index must be of format version {VERSION} "
                f"(format_version: {document.get('format_version')})",
                where=where,
                hint="import the data again with `hpc-train data import`",
            )
        try:
            return cls(
                fields={n: _field_from_json(entry) for n, entry in document["fields"].items()},
                shards=tuple(
                    Shard(str(s["file"]), int(s["samples"]), int(s["block_rows"]))
                    for s in document["shards"]
                ),
                source=str(document.get("source", "")),
                licence=str(document.get("licence", "")),
                sidecar=dict(document.get("sidecar", {})),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"damaged index: {error!r}", where=where) from error

    @classmethod
    def read(cls, folder: Path, name: str = NAME) -> Index:
        """The index of the data set in `folder`."""
        path = folder / name
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise DataError(f"cannot read index: {error.strerror}", where=str(path)) from error
        except ValueError as error:
            raise DataError(f"damaged index: {error}", where=str(path)) from error
        return cls.from_json(document, str(path))

    def write(self, folder: Path, name: str = NAME) -> None:
        """Write `index.json` (or `name`) into `folder`, atomically."""
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            with temporary.open("w", encoding="utf-8") as file:
                json.dump(self.to_json(), file, indent=1)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _field_to_json(info: FieldInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {"shape": list(info.shape), "dtype": info.dtype}
    if info.low is not None:
        entry["range"] = [info.low, info.high]
    if info.classes:
        entry["classes"] = list(info.classes)
    if info.mean:
        entry["mean"], entry["std"] = list(info.mean), list(info.std)
    return entry


def _field_from_json(entry: dict[str, Any]) -> FieldInfo:
    low, high = entry.get("range", (None, None))
    np.dtype(entry["dtype"])
    return FieldInfo(
        shape=tuple(int(n) for n in entry["shape"]),
        dtype=str(entry["dtype"]),
        low=low,
        high=high,
        classes=tuple(entry.get("classes", ())),
        mean=tuple(map(float, entry.get("mean", ()))),
        std=tuple(map(float, entry.get("std", ()))),
    )
