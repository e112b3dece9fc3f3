"""A configuration as text: resolved, and as a commented file to start from."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from hpc_train.config import allowed
from hpc_train.config.load import leaves
from hpc_train.config.schema import Config

# What the starter file sets: an example that works as it is.
EXAMPLE: dict[tuple[str, str], Any] = {
    ("run", "name"): "digits",
    ("run", "epochs"): 15,
    ("data", "train"): "builtin:digits/train",
    ("data", "test"): "builtin:digits/test",
    ("data", "inputs"): "image",
    ("data", "targets"): "label",
    ("data", "scale"): 0.0625,
    ("model", "name"): "cnn",
}

_STARTER_HEAD = """\
# A run of hpc_train.
#
# Lines such as "# seed = 0" show defaults (or, where there is none, an example):
# take the "# " away to set them. Any key can be overridden on the command line.
#
#     hpc-train config show THIS_FILE                   what it means, with all defaults
#     hpc-train run THIS_FILE -n 2 optimizer.lr=1e-2    train, on two ranks
"""
_COMMENT_COLUMN = 32


def to_toml(config: Config, origins: Mapping[str, str] | None = None) -> str:
    """A configuration as TOML that loads to an equal one; keys without a value are left out.

    Args:
        config: the configuration.
        origins: where each value comes from, by key: written behind it as a comment, and keys
            without a value are named in comments.
    """
    values = leaves(config)
    tables = []
    for section in allowed.sections():
        if allowed.is_list(section):
            tables += _entries(section, values[section,], origins)
            continue
        lines = [f"[{section}]"]
        rows = {path: value for path, value in values.items() if path[0] == section}
        for path, value in rows.items():
            key = ".".join(to_key(part) for part in path[1:])
            if value is not None:
                line = f"{key} = {to_value(value)}"
                lines.append(_with_origin(line, path, origins))
            elif origins is not None:
                lines.append(f"# {key} is not set")
        tables.append("\n".join(lines))
    return "\n\n".join(tables) + "\n"


def starter() -> str:
    """A commented file with every section and key: an example that runs, and all defaults."""
    tables = [_STARTER_HEAD]
    for section, schema in allowed.sections().items():
        is_list = allowed.is_list(section)  # none by default, so its header is a comment, too
        lines = [
            f"# {schema.get('description', '')}",
            f"# [[{section}]]" if is_list else f"[{section}]",
        ]
        lines += [_starter_line(section, key) for key in allowed.keys(section)]
        tables.append("\n".join(lines) + "\n")
    return "\n".join(tables)


def to_value(value: Any) -> str:
    """One value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(to_value(item) for item in value)}]"
    if isinstance(value, Mapping):
        items = ", ".join(f"{to_key(key)} = {to_value(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, str):
        # JSON's escapes are TOML's, but JSON leaves this control character as it is
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)  # dates and times


def to_key(name: str) -> str:
    """One part of a key as TOML, quoted where needed."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else to_value(name)


def _entries(
    section: str, entries: Sequence[BaseModel], origins: Mapping[str, str] | None
) -> list[str]:
    """The tables of a section that is a list of them; keys without a value are left out."""
    tables = []
    for entry in entries:
        lines = [f"{to_key(key)} = {to_value(value)}" for key, value in entry if value is not None]
        head = f"[[{section}]]"
        tables.append("\n".join([_with_origin(head, (section,), origins), *lines]))
    return tables


def _with_origin(line: str, path: tuple[str, ...], origins: Mapping[str, str] | None) -> str:
    if origins is None:
        return line
    origin = origins.get(".".join(path), "")
    return f"{line:<{_COMMENT_COLUMN}} # {Path(origin).name}" if origin else line


def _starter_line(section: str, key: str) -> str:
    schema = allowed.keys(section)[key]
    if (section, key) in EXAMPLE:
        line = f"{key} = {to_value(EXAMPLE[section, key])}"
    else:
        shown = schema.get("examples", [schema.get("default")])[0]
        line = f"# {key} = {to_value(shown)}"
    return f"{line:<{_COMMENT_COLUMN}} # {schema.get('description', '')}"
