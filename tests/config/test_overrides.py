"""Overrides: keys and values of a command line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.config.overrides import Override, apply, parse_override
from hpc_train.config.text import to_key, to_value
from hpc_train.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("1e-3", 1e-3),
        ("true", True),
        ("True", "True"),
        (".5", ".5"),
        ("relu", "relu"),
        ("builtin:digits/train", "builtin:digits/train"),
        ("mnist[:8000]", "mnist[:8000]"),
        ("a=b", "a=b"),
        ("two words", "two words"),
        ('"64"', "64"),
        ("'a # b'", "a # b"),
        ("data#1", "data#1"),
        ("5#3", "5#3"),
        ("[1, 2]", [1, 2]),
        ('["a", "b"]', ["a", "b"]),
        ("{ x = 1 }", {"x": 1}),
        ("1 steps", "1 steps"),
        ("2026-01-01", "2026-01-01"),
        ("1\nother = 2", "1\nother = 2"),
        ("", None),
    ],
)
def test_values(text, value):
    assert parse_override(f"a.b={text}") == Override(("a", "b"), value)


@pytest.mark.parametrize(
    ("text", "path"),
    [("a=1", ("a",)), (" a . b =1", ("a", "b")), ('model."x=y".z=1', ("model", "x=y", "z"))],
)
def test_keys(text, path):
    assert parse_override(text) == Override(path, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("digits", 'an override must read key.sub=value ("digits")'),
        ("", 'an override must read key.sub=value ("")'),
        ("=5", 'the key of an override must read section.key ("")'),
        ("a..b=5", 'the key of an override must read section.key ("a..b")'),
        ("--a=5", None),
        ("a b=5", 'the key of an override must read section.key ("a b")'),
        ("a.b=[image]", "a value that begins with [ must be TOML (a.b: [image])"),
        ("a.b={x}", "a value that begins with { must be TOML (a.b: {x})"),
        ('a.b="x', 'a value that begins with " must be TOML (a.b: "x)'),
    ],
)
def test_mistakes(text, message):
    if message is None:
        assert parse_override(text).path == ("--a",)
        return
    with pytest.raises(ConfigError) as caught:
        parse_override(text)
    assert caught.value.message == message
    assert caught.value.where == "override"


keys = st.lists(st.text(min_size=1), min_size=1, max_size=3)
literals = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text()
)


@settings(max_examples=50, deadline=None)
@given(keys, literals | st.lists(literals) | st.dictionaries(st.text(), literals))
def test_any_value_written_as_toml_is_understood(path, value):
    text = f"{'.'.join(map(to_key, path))}={to_value(value)}"
    assert parse_override(text) == Override(tuple(path), value)


@settings(max_examples=50, deadline=None)
@given(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1))
def test_words_are_texts(word):
    expected = {"true": True, "false": False, "inf": float("inf")}.get(word, word)
    if word != "nan":
        assert parse_override(f"a.b={word}").value == expected


def test_apply():
    table = {"run": {"epochs": 3, "name": "x"}, "model": {"name": "cnn", "hidden": 5}}
    wanted = ["run.steps=5", 'model={name = "mlp"}', "run.name=", "data.train=a", "data.train=b"]
    assert apply([parse_override(text) for text in wanted], table) == []
    assert table == {"run": {"steps": 5}, "model": {"name": "mlp"}, "data": {"train": "b"}}


def test_apply_keeps_contradictions_of_the_command_line():
    table = {"run": {"epochs": 3}}
    apply([parse_override("run.steps=5"), parse_override("run.epochs=2")], table)
    assert table == {"run": {"steps": 5, "epochs": 2}}


def test_apply_reports_what_is_no_table():
    table = {"run": {"name": "x"}}
    (problem,) = apply([parse_override("run.name.first=5")], table)
    assert problem.message == "run.name is not a table, run.name.first cannot be in it"
    assert table == {"run": {"name": "x"}}


def test_taking_away_what_is_not_there_changes_nothing():
    table = {"run": {}}
    assert apply([parse_override("data.train="), parse_override("run.dir=")], table) == []
    assert table == {"run": {}}
