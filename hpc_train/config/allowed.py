"""What a key may hold, in words: read from the JSON schema that the types of the schema give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

from hpc_train.config.schema import Config

JsonSchema = dict[str, Any]

_BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_NOUNS = {
    "integer": "an integer",
    "number": "a number",
    "string": "a text",
    "boolean": "true or false",
    "object": "a table",
}


@cache
def json_schema() -> JsonSchema:
    """The JSON schema (draft 2020-12) of a configuration file."""
    schema = Config.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "configuration of hpc_train",
    }


@cache
def sections() -> dict[str, JsonSchema]:
    """The JSON schema of each section, by name, in order."""
    places = json_schema()["properties"]
    # of a list of tables: the schema of one
    return {name: _resolved(place.get("items", place)) for name, place in places.items()}


def _resolved(place: JsonSchema) -> JsonSchema:
    """A schema itself, in place of a reference to it."""
    reference = place.get("$ref", "")
    definitions: dict[str, JsonSchema] = json_schema()["$defs"]
    return definitions[reference.rpartition("/")[2]] if reference else place


def keys(section: str) -> dict[str, JsonSchema]:
    """The JSON schema of each key of a section, or of a table in one (`section.key.name`)."""
    name, _, rest = section.partition(".")
    schema = sections()[name]
    if rest:
        schema = _inner(name, rest.partition(".")[0])
    found: dict[str, JsonSchema] = schema.get("properties", {})
    return found


def holds_tables(section: str, key: str) -> bool:
    """Whether a key holds tables by name, of keys that the schema knows."""
    return "properties" in _inner(section, key)


def _inner(section: str, key: str) -> JsonSchema:
    """The schema of the tables that a key holds by name; empty if it holds none."""
    inner = sections().get(section, {}).get("properties", {}).get(key, {})
    inner = inner.get("additionalProperties", {})
    return _resolved(inner) if isinstance(inner, dict) else {}


def required(section: str) -> list[str]:
    """The keys without which a section is not complete."""
    return list(sections()[section].get("required", []))


def is_open(section: str) -> bool:
    """Whether further keys are arguments of something, checked elsewhere."""
    return sections()[section].get("additionalProperties", False) is not False


def is_known(section: object) -> bool:
    """Whether there is a section of that name."""
    return section in sections()


def is_list(section: str) -> bool:
    """Whether a section is a list of tables, `[[section]]`, none by default."""
    kind: object = json_schema()["properties"][section].get("type")
    return kind == "array"


def homes(key: str) -> list[str]:
    """The sections that name `key`."""
    return [section for section in sections() if key in keys(section)]


def alternatives(schema: JsonSchema) -> Iterator[JsonSchema]:
    """The schemas of which one must hold; null, that TOML cannot write, is left out."""
    for one in schema.get("anyOf", [schema]):
        if one.get("type") != "null":
            yield one


def names_allowed(schema: JsonSchema) -> list[str]:
    """The texts that a key can be chosen from."""
    texts: list[str] = []
    for one in alternatives(schema):
        texts += one.get("enum", [one["const"]] if "const" in one else [])
    return texts


def allowed(schema: JsonSchema) -> str:
    """A rule that completes "... must be": `an integer >= 1 or "auto"`."""
    words = [word for one in alternatives(schema) for word in _words(one)]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _words(schema: JsonSchema) -> list[str]:
    if "enum" in schema or "const" in schema:
        return [json.dumps(value) for value in schema.get("enum", [schema.get("const")])]
    if schema.get("type") == "array":
        return [_list_words(schema)]
    entry = schema.get("additionalProperties")
    if isinstance(entry, dict) and "type" in entry:
        return [f"a table, each entry {allowed(entry)}"]
    noun = _NOUNS.get(schema.get("type", ""), "a value")
    bounds = [f"{sign} {_number(schema[name])}" for name, sign in _BOUNDS.items() if name in schema]
    return [" ".join([noun, " and ".join(bounds)]).strip()]


def _number(value: float) -> str:
    """A bound, large powers of two as such."""
    whole = int(value)
    is_power = whole == value and whole > 2**20 and whole & (whole - 1) == 0
    return f"2^{whole.bit_length() - 1}" if is_power else f"{value:g}"


def _list_words(schema: JsonSchema) -> str:
    if "prefixItems" in schema:
        items = [allowed(item) for item in schema["prefixItems"]]
        if len(set(items)) == 1:
            return f"a list of {len(items)} entries, each {items[0]}"
        return f"a list of {len(items)} entries: {', '.join(items)}"
    entry = allowed(schema.get("items", {}))
    least = " with at least one entry" if schema.get("minItems") == 1 else ""
    return f"a list{least}, each entry {entry}"
