"""Where each key of a TOML text stands: `tomllib` gives values without lines.

The text has been parsed by `tomllib` before, so nothing is checked here: this walks over it only
far enough to see keys, and to step over strings, arrays and inline tables.
"""

from __future__ import annotations

import re
import tomllib

# ("schedule", "shares", 1) is schedule.shares[1]: names are keys, integers are places in an array
Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
KEY = re.compile(rf"{_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART})*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}(?!")'
    r"|'''.*?'{3,5}(?!')"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[Path, int]:
    """The line, counted from 1, on which each key, table and array item of `text` begins.

    Args:
        text: a valid TOML document.
    """
    return _Scanner(text).scan()


def split_key(text: str) -> list[str]:
    """The parts of a dotted key: `a."b.c"` is ["a", "b.c"].

    Raises:
        ValueError: if `text` is not a TOML key.
    """
    if not KEY.fullmatch(text):
        raise ValueError(f'a key must read section.key (key: "{text}")')
    parts = []
    table = tomllib.loads(f"{text} = 0")
    while isinstance(table, dict):
        ((part, table),) = table.items()
        parts.append(part)
    return parts


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._place = 0
        self._line = 1
        self._counted = 0  # characters whose newlines are in `_line`
        self._lines: dict[Path, int] = {}
        self._lengths: dict[Path, int] = {}  # of arrays of tables, so far

    def scan(self) -> dict[Path, int]:
        """The line, from 1 on, of every key and table."""
        table: Path = ()
        self._skip(_BLANK)
        while self._place < len(self._text):
            if self._text[self._place] == "[":
                table = self._header()
            else:
                self._key_value(table)
            self._skip(_BLANK)
        return self._lines

    def _header(self) -> Path:
        """[table] or [[array of tables]]; the path of what follows."""
        is_array = self._text.startswith("[[", self._place)
        brackets = 2 if is_array else 1
        line = self._line_here()
        self._place += brackets
        self._skip(_BLANK)
        path: Path = ()
        parts = self._key()
        for number, part in enumerate(parts):
            path = (*path, part)
            last = number == len(parts) - 1
            if last and is_array:
                self._note(path, line)
                self._lengths[path] = self._lengths.get(path, 0) + 1
            elif last:
                # the header is the table's place, even if a table below it came first
                self._lines[path] = line
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
            self._note(path, line)
        self._skip(_BLANK)
        self._place += brackets
        return path

    def _key_value(self, table: Path) -> None:
        line = self._line_here()
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, line)
        self._skip(_BLANK)
        self._place += 1  # the equals sign
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        start = self._text[self._place]
        if start in "\"'":
            self._skip(_STRING)
        elif start == "[":
            self._array(path)
        elif start == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        number = 0
        while self._another("]"):
            self._note((*path, number), self._line_here())
            self._value((*path, number))
            number += 1

    def _inline_table(self, path: Path) -> None:
        while self._another("}"):
            self._key_value(path)

    def _another(self, end: str) -> bool:
        """Step over an opening bracket or a comma; false, and past `end`, if that follows."""
        self._skip(_BLANK)
        if self._text[self._place] in "[{,":
            self._place += 1
            self._skip(_BLANK)
        if self._text[self._place] != end:
            return True
        self._place += 1
        return False

    def _key(self) -> list[str]:
        return split_key(self._skip(KEY))

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._place)
        assert match is not None, f"not TOML from character {self._place} on"
        self._place = match.end()
        return match.group()

    def _line_here(self) -> int:
        self._line += self._text.count("\n", self._counted, self._place)
        self._counted = self._place
        return self._line

    def _note(self, path: Path, line: int) -> None:
        self._lines.setdefault(path, line)
