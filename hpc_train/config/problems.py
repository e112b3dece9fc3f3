"""Every mistake of a configuration in our own words: what pydantic found, place and remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hpc_train.config import allowed
from hpc_train.config.lines import Path
from hpc_train.config.overrides import WHERE
from hpc_train.errors import ConfigError, nearest

_LONGEST = 60


@dataclass(frozen=True)
class Places:
    """Where the values of a configuration come from.

    Attributes:
        file: name of the file; None without one.
        lines: line of each key of the file.
        overridden: keys that overrides set.
        argument: whether values that are neither in the file nor overridden are arguments.
    """

    file: str | None = None
    lines: Mapping[Path, int] = field(default_factory=dict)
    overridden: frozenset[tuple[str, ...]] = frozenset()
    argument: bool = False

    def of(self, path: Path) -> str | None:
        """`FILE:LINE`, "override", "argument", or None for what is nowhere."""
        deep = 1 if len(path) == 1 and path not in self.lines else 2
        for override in self.overridden:
            shared = min(len(override), max(deep, len(path)))
            if override[:shared] == path[:shared]:
                return WHERE
        while path:
            if path in self.lines:
                return f"{self.file}:{self.lines[path]}"
            path = path[:-1]
        return "argument" if self.argument else self.file


def problems(error: ValidationError, table: Mapping[str, Any], places: Places) -> list[ConfigError]:
    """One error per mistake, in the order of their lines.

    Args:
        error: what the schema found.
        table: what it was given.
        places: where that came from.
    """
    found: dict[Path, tuple[Path, ConfigError]] = {}
    for detail in error.errors(include_url=False):
        for path, problem in _translate(detail, table, places):
            # a union complains once for each of its types; the deepest place says most
            whole = path[: _depth(path)]
            known = found.get(whole)
            if known is None or (len(path) > len(known[0]) and len(known[0]) > 1):
                found[whole] = (path, problem)
    mistakes = [problem for _, problem in found.values()]
    return sorted(mistakes, key=_line)


def _translate(
    detail: Any, table: Mapping[str, Any], places: Places
) -> list[tuple[Path, ConfigError]]:
    loc: Path = detail["loc"]
    if allowed.is_known(loc[0]) and allowed.is_list(str(loc[0])):
        return [(loc, _at(_in_list(detail, table), places, loc))]
    depth = _depth(loc)
    section = ".".join(map(str, loc[: depth - 1]))
    key = str(loc[depth - 1]) if len(loc) >= depth else None
    kind, value = detail["type"], detail["input"]
    if kind == "extra_forbidden":
        problem = _unknown_key(section, key) if key else _unknown_section(section, value)
        return [(loc, _at(problem, places, loc))]
    if kind == "missing" and len(loc) <= 2:
        missing = [key] if key else allowed.required(section)
        return [((section, name), _missing(section, name, table, places)) for name in missing]
    if key is None:
        return [(loc, _whole_section(section, loc, detail, places))]
    path = _walk(loc, depth, table)
    return [(path, _at(_wrong_value(section, path, depth, detail, table), places, path))]


def _depth(loc: Path) -> int:
    """How many parts name a key: section and key, or those of a table in a section or list."""
    if allowed.is_known(loc[0]) and allowed.is_list(str(loc[0])):
        return 3
    return 4 if len(loc) > 2 and allowed.holds_tables(str(loc[0]), str(loc[1])) else 2


def _at(problem: ConfigError, places: Places, path: Path) -> ConfigError:
    problem.where = places.of(path)
    return problem


def _unknown_section(name: str, value: Any) -> ConfigError:
    if isinstance(value, dict):
        like = nearest(name, allowed.sections())
        known = ", ".join(allowed.sections())
        hint = f"did you mean [{like}]?" if like else f"sections are: {known}"
        return ConfigError(f"unknown section [{name}]", hint=hint)
    return ConfigError(f"unknown key {name}, keys belong to sections", hint=_elsewhere(name))


def _elsewhere(name: str) -> str:
    """Where a key stands that was written outside of any section."""
    known = {key for section in allowed.sections() for key in allowed.keys(section)}
    key = name if name in known else nearest(name, known)
    if key is None:
        return f"sections are: {', '.join(allowed.sections())}"
    return f"did you mean {' or '.join(f'{section}.{key}' for section in allowed.homes(key))}?"


def _unknown_key(section: str, key: str) -> ConfigError:
    known = allowed.keys(section)
    homes = allowed.homes(key)
    like = nearest(key, known)
    if homes:
        belongs = " and ".join(f"[{home}]" for home in homes)
        hint = f"{key} belongs to {belongs}: write {homes[0]}.{key}"
    elif like:
        hint = f"did you mean {section}.{like}?"
    else:
        hint = f"keys of [{section}]: {', '.join(known)}"
    return ConfigError(f"unknown key {section}.{key}", hint=hint)


def _missing(section: str, key: str, table: Mapping[str, Any], places: Places) -> ConfigError:
    given = table.get(section, {})
    like = nearest(key, given) if allowed.is_open(section) else None
    about = allowed.keys(section)[key].get("description", "")
    hint = f"did you mean {key} by {section}.{like}?" if like else f"{key}: {about}"
    where = places.of((section,)) if section in table else places.file
    return ConfigError(f"{section}.{key} is required", where=where, hint=hint)


def _whole_section(section: str, loc: Path, detail: Any, places: Places) -> ConfigError:
    """A section that is no table, or whose keys contradict each other."""
    cause = detail.get("ctx", {}).get("error")
    if not isinstance(cause, ValueError):
        message = f"{section} must be a table ({section}: {show(detail['input'])})"
        return _at(ConfigError(message, hint=f"write [{section}]"), places, loc)
    text = str(cause)
    named = [(section, key) for key in allowed.keys(section) if f"{section}.{key}" in text]
    given = [path for path in named if path in places.lines or path in places.overridden]
    return ConfigError(text, where=places.of(given[-1] if given else (section,)))


def _in_list(detail: Any, table: Mapping[str, Any]) -> ConfigError:
    """A mistake in a section that is a list of tables."""
    section, *inside = detail["loc"]
    if len(inside) < 2:
        shown = show(table[section])
        message = f"{section} must be a list of tables ({section}: {shown})"
        return ConfigError(message, hint=f"write [[{section}]] above the keys of each")
    place, key = inside[0], str(inside[1])
    name = f"{section}[{place}].{key}"
    schema = allowed.keys(section)[key]
    if detail["type"] == "missing":
        return ConfigError(f"{name} is required", hint=f"{key}: {schema.get('description', '')}")
    value = table[section][place][key]
    rule = f"must be {allowed.allowed(schema)}"
    return ConfigError(f"{name} {rule} ({name}: {show(value)})", hint=_remedy(name, schema, value))


def _wrong_value(
    section: str, path: Path, depth: int, detail: Any, table: Mapping[str, Any]
) -> ConfigError:
    key = str(path[depth - 1])
    schema = allowed.keys(section)[key]
    whole = _follow(table, path[:depth])
    name = f"{section}.{key}"
    cause = detail.get("ctx", {}).get("error")
    rule = str(cause) if isinstance(cause, ValueError) else f"must be {allowed.allowed(schema)}"
    places = "".join(f"[{part}]" for part in path[depth:])
    shown = f"{name}: {show(whole)}"
    if places and detail["type"] != "value_error":
        shown = f"{name}{places}: {show(_follow(table, path))}"
    return ConfigError(f"{name} {rule} ({shown})", hint=_remedy(name, schema, whole))


def _remedy(name: str, schema: dict[str, Any], value: Any) -> str | None:
    """What was probably meant by a value that is not allowed."""
    kinds = {one.get("type") for one in allowed.alternatives(schema)}
    if isinstance(value, str):
        like = nearest(value, allowed.names_allowed(schema))
        if like:
            return f'did you mean "{like}"?'
        number = _as_number(value)
        if number is not None and kinds & {"number", "integer"}:
            return f"numbers are written without quotes: {name} = {number}"
        if "boolean" in kinds and value.lower() in ("true", "false"):
            return f"write {name} = {value.lower()}"
    is_free = kinds == {"string"} and not allowed.names_allowed(schema)
    if isinstance(value, bool | int | float) and is_free:
        text = json.dumps(show(value))
        return f"texts are quoted: {name} = {text}; for a shell: {name}='{text}'"
    if isinstance(value, float) and value.is_integer() and "integer" in kinds:
        return f"write {name} = {int(value)}"
    return None


def _as_number(text: str) -> str | None:
    """The number that a text spells, as TOML writes it."""
    try:
        return f"{int(text)}"
    except ValueError:
        pass
    try:
        return f"{float(text)!r}"
    except ValueError:
        return None


def _walk(loc: Path, depth: int, table: Mapping[str, Any]) -> Path:
    """`loc` without the parts by which pydantic names the types of a union."""
    path, here = loc[:depth], _follow(table, loc[:depth])
    for part in loc[depth:]:
        if isinstance(part, int) and isinstance(here, list) and part < len(here):
            path, here = (*path, part), here[part]
    return path


def _follow(table: Any, path: Path) -> Any:
    for part in path:
        table = table[part]
    return table


def _line(problem: ConfigError) -> tuple[bool, int]:
    """Sorts by line; what has none comes last."""
    line = (problem.where or "").rpartition(":")[2]
    return (not line.isdigit(), int(line) if line.isdigit() else 0)


def show(value: Any) -> str:
    """A value as TOML writes it, cut short."""
    text = json.dumps(value, ensure_ascii=False, default=lambda item: type(item).__name__)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
