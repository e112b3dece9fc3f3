"""Plain text: every byte or every character is a sample, the scalar field `token`.

characters   "To be"   classes " ", "T", "b", "e", "o" (sorted)   token 1 4 0 2 3
bytes        "To be"   no classes                                  token 84 111 32 98 101
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo
from hpc_train.data.sources.source import Arrays, Kind, Options, Source
from hpc_train.errors import DataError, UsageError, unknown

TOKENS = ("bytes", "characters")
_PIECE_BYTES = 2**20
_BYTE_LEVEL = 256


class TextSource:
    """The tokens of a file; of characters uint8 up to 256 different ones, else int32."""

    licence = ""

    def __init__(self, path: Path, options: Options) -> None:
        tokens = options.tokens or "characters"
        if tokens not in TOKENS:
            raise UsageError(unknown("tokens", tokens, TOKENS))
        self._path = path
        self.source = path.name
        self._points: NDArray[np.int64] | None = None  # code points of the vocabulary, ascending
        if tokens == "bytes":
            self.num_samples = sum(len(piece) for piece in self._bytes())
            return
        known: set[str] = set()
        self.num_samples = 0
        for piece in self._characters():
            known.update(piece)
            self.num_samples += len(piece)
        self._points = np.array(sorted(ord(character) for character in known), np.int64)

    def fields(self) -> dict[str, FieldInfo]:
        """The field `token`; its classes are the vocabulary."""
        if self._points is None:
            return {"token": FieldInfo((), "uint8")}
        dtype = "uint8" if len(self._points) <= _BYTE_LEVEL else "int32"
        return {"token": FieldInfo((), dtype, classes=tuple(chr(p) for p in self._points))}

    def batches(self, rows: int) -> Iterator[Arrays]:
        """Tokens in the order of the text, about a mebibyte of it at a time."""
        if self._points is None:
            yield from ({"token": np.frombuffer(piece, np.uint8)} for piece in self._bytes())
            return
        dtype = self.fields()["token"].dtype
        for piece in self._characters():
            points = np.frombuffer(piece.encode("utf-32-le"), "<u4")
            yield {"token": np.searchsorted(self._points, points).astype(dtype)}

    def _bytes(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    yield piece
        except OSError as error:
            raise DataError(f"cannot read: {error.strerror}", where=str(self._path)) from error

    def _characters(self) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")()
        done = 0
        try:
            for piece in self._bytes():
                yield decoder.decode(piece)
                done += len(piece)
            yield decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise DataError(
                f"text must be UTF-8 ({error.reason} near byte {done + error.start})",
                where=str(self._path),
                hint="--tokens bytes takes any file",
            ) from error


def _open(path: Path, options: Options) -> Source:
    return TextSource(path, options)


def _matches(path: Path) -> bool:
    return path.suffix.lower() in (".txt", ".md", ".text") and path.is_file()


KIND = Kind("plain text (.txt), as tokens", _open, _matches, frozenset({"tokens"}))
