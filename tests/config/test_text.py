"""Configurations as text."""

import re
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.config import Config, json_schema, load, starter, to_toml
from hpc_train.config.allowed import allowed, is_list, keys, required, sections
from hpc_train.config.text import EXAMPLE

texts = st.text()
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | texts | st.floats(allow_nan=False)
arguments = st.recursive(
    plain, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=5
)
positive = st.integers(1, 2**40)

RIVALS = ("steps", "swa_start", "shares")  # they rule out what another key has by default


def optional(strategy):
    return st.none() | strategy


lengths = st.one_of(
    st.fixed_dictionaries({"epochs": positive}), st.fixed_dictionaries({"steps": positive})
)
configs = st.builds(
    lambda run, length, data, model, optimizer, shares: Config.model_validate(
        {
            "run": {**run, **length},
            "data": data,
            "model": model,
            "optimizer": optimizer,
            "schedule": {"shares": shares},
        }
    ),
    st.fixed_dictionaries({"dir": optional(texts), "seed": st.integers(0, 2**63 - 1)}),
    lengths,
    st.fixed_dictionaries(
        {
            "train": texts,
            "validation": optional(texts),
            "inputs": texts | st.lists(texts, min_size=1),
            "scale": st.sampled_from(["auto", "none"])
            | st.floats(0, exclude_min=True, allow_infinity=False),
            "shuffle_window": positive | st.just("auto"),
            "cache_bytes": st.sampled_from(["1.5 GiB", "17 KiB", 5]),
            "node_cache": st.sampled_from([True, False, "auto"]),
        }
    ),
    st.builds(
        lambda extra, name: {**extra, "name": name}, st.dictionaries(texts, arguments), texts
    ),
    st.fixed_dictionaries(
        {
            "name": st.sampled_from(["sgd", "adam", "adamw"]),
            "lr": st.floats(0, allow_infinity=False),
            "betas": st.lists(st.floats(0, 1, exclude_max=True), min_size=2, max_size=2),
            "clip_norm": optional(st.floats(0, exclude_min=True, allow_infinity=False)),
        }
    ),
    optional(st.lists(st.floats(0, allow_infinity=False))),
)


@settings(max_examples=50, deadline=None)
@given(configs)
def test_what_is_written_loads_to_the_same(config):
    text = to_toml(config)
    assert Config.model_validate(tomllib.loads(text)) == config


@settings(max_examples=50, deadline=None)
@given(configs)
def test_origins_are_comments(config):
    origins = {
        f"{section}.{key}": "some/where.toml:3" for section in sections() for key in keys(section)
    }
    text = to_toml(config, origins)
    assert Config.model_validate(tomllib.loads(text)) == config
    assert "  # where.toml:3" in text


def test_values_that_are_not_set_are_named_with_their_origins(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(starter())
    loaded = load(path)
    assert "# dir is not set" in to_toml(loaded.config, loaded.origins)
    assert "dir" not in to_toml(loaded.config)


def test_the_starter_loads_to_its_example_and_defaults(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text(starter())
    tables = {}
    for (section, key), value in EXAMPLE.items():
        tables.setdefault(section, {})[key] = value
    assert load(path).config == Config.model_validate(tables)


def test_the_starter_names_every_key_and_its_default(tmp_path):
    lines = starter().splitlines()
    assert max(map(len, lines)) <= 100
    shown = [line.removeprefix("# ") for line in lines if not line.startswith("#  ")]
    shown = [line for line in shown if re.match(r"\w+ = |\[", line)]
    shown = [line for line in shown if not line.startswith(RIVALS)]
    table = tomllib.loads("\n".join(shown))
    config = Config.model_validate(table)  # every line is right, comment or not
    for section in sections():
        given = table[section][0] if is_list(section) else table[section]
        assert {*given, *RIVALS} >= set(keys(section))
    default = Config.model_validate({"data": {"train": "", "inputs": "x"}, "model": {"name": ""}})
    without_default = {"clip_norm", "keep_best", "phases", "rates"} | {
        "cuda_allocator",
        "memory_fraction",
    }
    for name in ("optimizer", "checkpoint", "device", "learning_rate", "strategy", "task"):
        ours = getattr(config, name).model_dump(exclude=without_default)
        assert ours == getattr(default, name).model_dump(exclude=without_default)


def test_every_key_is_described():
    for section, schema in sections().items():
        assert schema["description"].endswith(".")
        for key, value in keys(section).items():
            assert value["description"], f"{section}.{key}"
            assert allowed(value)
            has_default = value.get("default") is not None or key in required(section)
            assert has_default or value["examples"], f"{section}.{key} shows no value"


def test_json_schema_lets_an_editor_complain():
    schema = json_schema()
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"data", "model"}
    assert "adagrad" in keys("optimizer")["name"]["enum"]
    assert sections()["model"]["additionalProperties"] is True
    assert {one["type"] for one in keys("data")["inputs"]["anyOf"]} == {"string", "array"}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "integer", "minimum": 1}, "an integer >= 1"),
        (
            {"anyOf": [{"type": "number"}, {"const": "auto"}, {"type": "null"}]},
            'a number or "auto"',
        ),
        ({"enum": ["a", "b", "c"]}, '"a", "b" or "c"'),
        ({"type": "array", "items": {"type": "string"}}, "a list, each entry a text"),
        (
            {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}]},
            "a list of 2 entries: a text, true or false",
        ),
        ({}, "a value"),
    ],
)
def test_allowed(schema, words):
    assert allowed(schema) == words
