"""Overrides from the command line: `key.sub=value`, the value a TOML literal, else a text.

optimizer.lr=1e-2            a number
run.name=first               a text: `first` is no TOML
data.inputs=["a", "b"]       a list; what begins like a list, a table or a quoted text must be one
model={name = "mlp"}         a table takes the place of the whole table
run.dir=                     nothing: as if the key were not in the file
"""

from __future__ import annotations

import datetime
import tomllib
from dataclasses import dataclass
from typing import Any

from hpc_train.config.lines import KEY, split_key
from hpc_train.errors import ConfigError

WHERE = "override"

# a key on the left takes those on the right out of the file: only one of them may be set
_INSTEAD: dict[tuple[str, ...], tuple[str, ...]] = {
    ("run", "epochs"): ("run", "steps"),
    ("run", "steps"): ("run", "epochs"),
}


@dataclass(frozen=True)
class Override:
    """One override: the parts of its key, and its value; None takes the key away."""

    path: tuple[str, ...]
    value: Any


def parse_override(text: str) -> Override:
    """What `text` asks for.

    Raises:
        ConfigError: if it does not read key.sub=value, or its value is half a list.
    """
    left, equals, right = _cut(text)
    if not equals:
        raise ConfigError(f'an override must read key.sub=value ("{text}")', where=WHERE)
    try:
        path = tuple(split_key(left.strip()))
    except ValueError:
        raise ConfigError(
            f'the key of an override must read section.key ("{left}")',
            where=WHERE,
            hint=f"as in optimizer.lr={right}" if right else None,
        ) from None
    return Override(path, _value(left.strip(), right.strip()))


def apply(overrides: list[Override], table: dict[str, Any]) -> list[ConfigError]:
    """Write `overrides` into `table`, in their order; the mistakes that prevent some of them."""
    problems = []
    chosen = {override.path for override in overrides if override.value is not None}
    for path in chosen:
        rival = _INSTEAD.get(path)
        if rival is not None and rival not in chosen:
            _put(Override(rival, None), table)
    for override in overrides:
        problem = _put(override, table)
        if problem is not None:
            problems.append(problem)
    return problems


def _put(override: Override, table: dict[str, Any]) -> ConfigError | None:
    here = table
    for number, part in enumerate(override.path[:-1]):
        inner = here.get(part) if override.value is None else here.setdefault(part, {})
        if inner is None:
            return None
        if not isinstance(inner, dict):
            above = ".".join(override.path[: number + 1])
            key = ".".join(override.path)
            return ConfigError(f"{above} is not a table, {key} cannot be in it", where=WHERE)
        here = inner
    if override.value is None:
        here.pop(override.path[-1], None)
    else:
        here[override.path[-1]] = override.value
    return None


def _cut(text: str) -> tuple[str, str, str]:
    """Key, equals sign and value; a quoted key may hold equals signs."""
    match = KEY.match(text.lstrip())
    end = len(text) - len(text.lstrip()) + match.end() if match else 0
    if text[end:].lstrip().startswith("="):
        left, equals, right = text[end:].partition("=")
        return text[:end] + left, equals, right
    return text.partition("=")


def _value(key: str, text: str) -> Any:
    if not text:
        return None
    must_be_toml = text[0] in "[{\"'"
    if "#" in text and not must_be_toml:
        return text  # TOML would take the rest for a comment
    try:
        table = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        if not must_be_toml:
            return text
        raise ConfigError(
            f"a value that begins with {text[0]} must be TOML ({key}: {text})",
            where=WHERE,
            hint=f"""quote texts inside it, and all of it for the shell: '{key}=["a", "b"]'""",
        ) from None
    value = table.pop("value")
    if table or isinstance(value, datetime.date | datetime.time):
        return text  # several lines, or a date, that no key holds
    return value
