"""Tables: a CSV file with a header; number columns become one feature vector per row.

    a,b,species        features  float32 (2,)   [[5.1, 3.5], [4.9, 3.0]]      `--target species`
    5.1,3.5,setosa     label     int64 ()       [0, 1]
    4.9,3.0,virginica  classes                  setosa, virginica             (sorted by name)

The file is read twice: to learn what the target column holds, then for its numbers.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo
from hpc_train.data.sources.source import Arrays, Kind, Options, Source
from hpc_train.errors import DataError, UsageError, unknown

_SUFFIXES = {".csv": ",", ".tsv": "\t"}
_MOST_CLASSES = 100_000

Row = tuple[int, list[str]]  # line number, cells


class CsvSource:
    """The rows of a table.

    A target column of whole numbers gives `label` (int64), of text `label` with class names, of
    other numbers `target` (float32).
    """

    licence = ""

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self.source = path.name
        self._header = self._read_header()
        self._target: int | None = None
        self._values = _Column()
        if options.target is not None:
            if options.target not in self._header:
                raise UsageError(unknown("column", options.target, self._header), where=str(path))
            self._target = self._header.index(options.target)
        self._columns = [i for i in range(len(self._header)) if i != self._target]
        if not self._columns:
            raise DataError("a table must have columns beside the target", where=str(path))
        self.num_samples = 0
        for line, cells in self._rows():
            self.num_samples += 1
            if self._target is not None:
                self._values.add(cells[self._target].strip(), self._where(line, self._target))
        self._classes = self._values.classes()

    def fields(self) -> dict[str, FieldInfo]:
        """`features`, and `label` or `target` if there is a target column."""
        found = {"features": FieldInfo((len(self._columns),), "float32")}
        if self._target is not None:
            if self._values.is_label:
                found["label"] = FieldInfo((), "int64", classes=self._classes)
            else:
                found["target"] = FieldInfo((), "float32")
        return found

    def batches(self, rows: int) -> Iterator[Arrays]:
        """The rows in their order."""
        held: list[Row] = []
        for row in self._rows():
            held.append(row)
            if len(held) == rows:
                yield self._convert(held)
                held = []
        if held:
            yield self._convert(held)

    def _convert(self, held: list[Row]) -> Arrays:
        arrays = {"features": self._numbers(held, self._columns)}
        target = self._target
        if target is None:
            return arrays
        if not self._values.is_label:
            arrays["target"] = self._numbers(held, [target])[:, 0]
            return arrays
        texts = [cells[target].strip() for _, cells in held]
        number = {name: place for place, name in enumerate(self._classes)}
        labels = [number[text] for text in texts] if number else [int(text) for text in texts]
        arrays["label"] = np.array(labels, np.int64)
        return arrays

    def _numbers(self, held: list[Row], columns: list[int]) -> NDArray[Any]:
        """The numbers of some columns, float32 (num_rows, num_columns)."""
        try:
            cells = [[float(cells[i]) for i in columns] for _, cells in held]
        except ValueError:
            self._complain(held, columns)
        with np.errstate(over="ignore"):  # beyond float32: infinite
            return np.array(cells, np.float32).reshape(len(held), len(columns))

    def _complain(self, held: list[Row], columns: list[int]) -> None:
        for line, cells in held:
            for column in columns:
                if not _is_number(cells[column]):
                    raise DataError(
                        f'cell must be a number (value: "{cells[column]}")',
                        where=self._where(line, column),
                        hint="a column of text can be the --target; remove other ones",
                    )

    def _where(self, line: int, column: int) -> str:
        return f"{self._path}, line {line}, column {self._header[column]}"

    def _read_header(self) -> list[str]:
        header = [name.strip() for name in next(self._lines(), (0, []))[1]]
        if not header:
            raise DataError("a table must begin with a line of column names", where=str(self._path))
        if len(set(header)) < len(header):
            twice = next(name for name in header if header.count(name) > 1)
            raise DataError(
                f'columns must have different names (twice: "{twice}")',
                where=f"{self._path}, line 1",
            )
        if all(_is_number(name) for name in header):
            raise DataError(
                "a table must begin with a line of column names (first line: numbers)",
                where=f"{self._path}, line 1",
            )
        return header

    def _rows(self) -> Iterator[Row]:
        lines = self._lines()
        next(lines)
        for line, cells in lines:
            if len(cells) != len(self._header):
                raise DataError(
                    f"a row must have {len(self._header)} cells (cells: {len(cells)})",
                    where=f"{self._path}, line {line}",
                )
            yield line, cells

    def _lines(self) -> Iterator[Row]:
        """Line number and cells of every line that is not empty."""
        delimiter = _SUFFIXES.get(self._path.suffix.lower(), ",")
        line = 0
        try:
            with self._path.open(newline="", encoding="utf-8-sig") as file:
                reader = csv.reader(file, delimiter=delimiter, strict=True)
                for cells in reader:
                    line = reader.line_num
                    if cells:
                        yield line, cells
        except OSError as error:
            raise DataError(f"cannot read: {error.strerror}", where=str(self._path)) from error
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(
                f"cannot read the table: {error}", where=f"{self._path}, after line {line}"
            ) from error


class _Column:
    """What is known of the target column: whole numbers, other numbers, or names of classes."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._first_text = ""
        self._has_fractions = False

    @property
    def is_label(self) -> bool:
        """Whether it holds classes: whole numbers or names."""
        return not self._has_fractions

    def add(self, text: str, where: str) -> None:
        """Note a value, found at `where`."""
        if not text:
            raise DataError("the target column must not be empty", where=where)
        if _is_number(text):
            self._has_fractions = self._has_fractions or not _is_whole(text)
        else:
            self._first_text = self._first_text or f'value: "{text}", {where}'
        if self._has_fractions and self._first_text:
            raise DataError(
                f"the target column must not mix fractions and text ({self._first_text})"
            )
        if not self._has_fractions:
            self._names.add(text)
        if self._first_text and len(self._names) > _MOST_CLASSES:
            raise DataError(
                f"the target column must have at most {_MOST_CLASSES} different texts", where=where
            )

    def classes(self) -> tuple[str, ...]:
        """Names of the classes, none if labels are numbers."""
        return tuple(sorted(self._names)) if self._first_text else ()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _is_whole(text: str) -> bool:
    return text.removeprefix("-").removeprefix("+").isdecimal()


def _open(path: Path, options: Options) -> Source:
    return CsvSource(path, options)


def _matches(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and path.is_file()


KIND = Kind("a .csv or .tsv table with a header", _open, _matches, frozenset({"target"}))
