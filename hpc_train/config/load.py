"""From a TOML file and overrides to a checked configuration, every mistake reported at once.

1 read the file                    a mistake in its syntax is the only one reported
2 lay the caller's tables over it
3 apply the overrides              those that cannot be read are put aside
4 check against the schema         all mistakes together, each with its line
"""

from __future__ import annotations

import hashlib
import json
import numbers
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from hpc_train.config.lines import key_lines
from hpc_train.config.overrides import Override, apply, parse_override
from hpc_train.config.problems import Places, problems
from hpc_train.config.schema import Config
from hpc_train.errors import ConfigError

DEFAULT = "default"


@dataclass(frozen=True)
class Loaded:
    """A configuration, and where each of its values comes from.

    Attributes:
        config: what was asked for.
        origins: `section.key` -> "default", "FILE:LINE", "override" or "argument".
    """

    config: Config
    origins: dict[str, str]


def load(
    source: Path | None,
    overrides: Sequence[str] = (),
    *,
    sections: Mapping[str, Any] | None = None,
) -> Loaded:
    """The configuration that a file, a caller's tables and overrides make together.

    Args:
        source: a TOML file; None without one.
        overrides: texts `key.sub=value`; they win over all else, the last one of a key over
            earlier ones.
        sections: tables by section name, as a library's caller gives them; each takes the place
            of the file's.

    Raises:
        ConfigError: with all mistakes in `problems`.
    """
    table, places = ({}, Places()) if source is None else _read(source)
    mistakes: list[ConfigError] = []
    wanted = _parse(overrides, mistakes)
    unplain: list[ConfigError] = []
    for name, section in (sections or {}).items():
        table[name] = _plain(section, name, unplain)
    mistakes += apply(wanted, table)
    places = Places(
        places.file,
        {path: line for path, line in places.lines.items() if path[0] not in (sections or {})},
        frozenset(override.path for override in wanted if override.value is not None),
        sections is not None,
    )
    try:
        config = Config.model_validate(table)
    except ValidationError as error:
        mistakes = problems(error, table, places) + mistakes
    named = {mistake.message.split()[0] for mistake in mistakes}
    mistakes += [mistake for mistake in unplain if mistake.message.split()[0] not in named]
    if mistakes:
        raise _all(mistakes)
    return Loaded(config, _origins(config, table, places))


def digest(config: Config) -> str:
    """A hash (SHA-256, hexadecimal) of a configuration, whatever its run is called and where it is.

    Equal for equal settings, however they were written.
    """
    settings = config.model_dump(exclude={"run": {"name", "dir"}})
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def leaves(model: BaseModel, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """The values of a configuration by their keys, those of open sections included, in order."""
    found: dict[tuple[str, ...], Any] = {}
    for name, value in model:
        if isinstance(value, BaseModel):
            found.update(leaves(value, (*path, name)))
        elif value and _are_tables(value):
            for inner, table in value.items():  # of these, only what was given
                found.update({(*path, name, inner, k): v for k, v in _given(table).items()})
        else:
            found[(*path, name)] = value
    return found


def _are_tables(value: Any) -> bool:
    """Whether a value is tables by name, of keys that the schema knows."""
    return isinstance(value, dict) and all(isinstance(v, BaseModel) for v in value.values())


def _given(table: BaseModel) -> dict[str, Any]:
    """The keys of a table that were set, in the order of the schema."""
    return {name: value for name, value in table if name in table.model_fields_set}


def _read(source: Path) -> tuple[dict[str, Any], Places]:
    """The tables of a file, and the lines of their keys."""
    file = str(source)
    try:
        text = source.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        raise ConfigError(
            "no such file", where=file, hint="hpc-train config init writes a first one"
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read it: {error.strerror}", where=file) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"a configuration must be text in UTF-8 (byte: {error.object[error.start]:#04x})",
            where=f"{file}:{line}",
        ) from error
    try:
        return tomllib.loads(text), Places(file, key_lines(text))
    except tomllib.TOMLDecodeError as error:
        raise _syntax(error, text, file) from error


def _syntax(error: tomllib.TOMLDecodeError, text: str, file: str) -> ConfigError:
    """A mistake in the syntax, with line and column."""
    match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error))
    reason = match[1] if match else str(error)
    lines = text.split("\n")
    line, column = len(lines), len(lines[-1]) + 1
    if match and match[2]:
        line, column = int(match[2]), int(match[3])
    shown = lines[line - 1].strip() if line <= len(lines) else ""
    hint = 'texts are quoted: name = "cnn"' if reason == "Invalid value" else None
    return ConfigError(
        f"a configuration must be TOML ({reason[:1].lower()}{reason[1:]}: {shown})",
        where=f"{file}:{line}:{column}",
        hint=hint,
    )


def _parse(texts: Sequence[str], mistakes: list[ConfigError]) -> list[Override]:
    found = []
    for text in texts:
        try:
            found.append(parse_override(text))
        except ConfigError as error:
            mistakes.append(error)
    return found


def _plain(value: Any, key: str, mistakes: list[ConfigError]) -> Any:
    """What a caller gave, in the types that TOML knows; keys with None are left out."""
    if isinstance(value, Mapping):
        kept = {str(name): item for name, item in value.items() if item is not None}
        return {name: _plain(item, f"{key}.{name}", mistakes) for name, item in kept.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{place}]", mistakes) for place, item in enumerate(value)]
    if isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    mistakes.append(
        ConfigError(
            f"{key} must be a text, number, boolean, list or table ({key}: {type(value).__name__})",
            where="argument",
        )
    )
    return value


def _origins(config: Config, table: Mapping[str, Any], places: Places) -> dict[str, str]:
    origins = {}
    for path in leaves(config):
        here: Any = table
        for part in path:
            here = here.get(part) if isinstance(here, dict) else None
        origin = DEFAULT if here is None else places.of(path)
        origins[".".join(path)] = origin or DEFAULT
    return origins


def _all(mistakes: Sequence[ConfigError]) -> ConfigError:
    count = f"{len(mistakes)} mistakes" if len(mistakes) > 1 else "a mistake"
    return ConfigError(f"{count} in the configuration", problems=mistakes)
