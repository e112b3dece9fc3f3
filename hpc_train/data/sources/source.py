"""What an importable kind of data offers, and the options of all kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Options:
    """What can be asked of sources; each kind takes some of them.

    Attributes:
        inputs, targets: names of the arrays or datasets to take; all where none is named.
        target: the column to be predicted.
        labels: the file with the labels, or "none".
        size: height and width that images are resized to.
        mode: "L" for grey images, "RGB" for colour.
        tokens: "bytes" or "characters".
    """

    inputs: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    target: str | None = None
    labels: str | None = None
    size: tuple[int, int] | None = None
    mode: str | None = None
    tokens: str | None = None

    @property
    def names(self) -> list[str]:
        """Inputs and targets, each once."""
        return list(dict.fromkeys([*self.inputs, *self.targets]))

    def given(self) -> list[str]:
        """Which options were set."""
        return [f.name for f in dataclasses.fields(self) if getattr(self, f.name)]


class Source(Protocol):
    """Samples in their order, as often as `batches` is called.

    Attributes:
        source: where they come from, for the index.
        licence: under which terms, as far as the source says it.
        num_samples: how many there are.
    """

    source: str
    licence: str
    num_samples: int

    def fields(self) -> dict[str, FieldInfo]:
        """Shape, dtype and class names of each field."""

    def batches(self, rows: int) -> Iterator[Arrays]:
        """All samples, about `rows` at a time; arrays are valid until the next batch."""


@dataclass(frozen=True)
class Kind:
    """A kind of source: how it is opened, by what it is recognised, which options it takes."""

    summary: str
    open: Callable[[Path, Options], Source]
    matches: Callable[[Path], bool]
    options: frozenset[str] = frozenset()
