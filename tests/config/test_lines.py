"""Where the keys of a TOML text stand."""

import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.config.lines import key_lines, split_key
from hpc_train.config.text import to_key, to_value

CASES = {
    "plain": ("\n[a]\n\nx = 1\n", {("a",): 2, ("a", "x"): 4}),
    "comments": ("# [no]\n[a] # y = 2\nx = 1 # z = 3\n", {("a",): 2, ("a", "x"): 3}),
    "dotted keys": ("a.b . c = 1\n", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 1}),
    "dotted header": ("[ a . b ]\nc = 1", {("a",): 1, ("a", "b"): 1, ("a", "b", "c"): 2}),
    "header after its child": (
        "[a.b]\n[a]\nc = 1",
        {("a",): 2, ("a", "b"): 1, ("a", "c"): 3},
    ),
    "quoted keys": (
        '["a.b"]\n\'x = 1\' = 2\n"q\\"\\u0041" = 3\n',
        {("a.b",): 1, ("a.b", "x = 1"): 2, ("a.b", 'q"A'): 3},
    ),
    "texts": ('a = "x = 1 # \\" ["\nb = \'y\\\'\nc = 2\n', {("a",): 1, ("b",): 2, ("c",): 3}),
    "long texts": (
        'a = """\nx = 1\n""\\"""""\nb = \'\'\'\n[z]\n\'\'\'\'\nc = """"""\nd = 1\n',
        {("a",): 1, ("b",): 4, ("c",): 7, ("d",): 8},
    ),
    "arrays": (
        "a = [\n  1,\n  # 3,\n  [2,\n 'x]'],\n]\nb = []\nc = [[1], [2]]\n",
        {
            ("a",): 1,
            ("a", 0): 2,
            ("a", 1): 4,
            ("a", 1, 0): 4,
            ("a", 1, 1): 5,
            ("b",): 7,
            ("c",): 8,
            ("c", 0): 8,
            ("c", 0, 0): 8,
            ("c", 1): 8,
            ("c", 1, 0): 8,
        },
    ),
    "inline tables": (
        'a = { x = 1, y.z = "}", w = [{ v = 2 },\n {}] }\nb = {}\n',
        {
            ("a",): 1,
            ("a", "x"): 1,
            ("a", "y"): 1,
            ("a", "y", "z"): 1,
            ("a", "w"): 1,
            ("a", "w", 0): 1,
            ("a", "w", 0, "v"): 1,
            ("a", "w", 1): 2,
            ("b",): 3,
        },
    ),
    "arrays of tables": (
        "[[a]]\nx = 1\n[[a]]\nx = 2\n[a.b]\ny = 3\n[[a.c]]\nz = 4\n",
        {
            ("a",): 1,
            ("a", 0): 1,
            ("a", 0, "x"): 2,
            ("a", 1): 3,
            ("a", 1, "x"): 4,
            ("a", 1, "b"): 5,
            ("a", 1, "b", "y"): 6,
            ("a", 1, "c"): 7,
            ("a", 1, "c", 0): 7,
            ("a", 1, "c", 0, "z"): 8,
        },
    ),
    "dates and numbers": (
        "a = 1979-05-27 07:32:00Z\nb = -1_000.5e-3\nc = inf",
        {("a",): 1, ("b",): 2, ("c",): 3},
    ),
    "nothing": ("# empty\n", {}),
}


@pytest.mark.parametrize(("text", "lines"), CASES.values(), ids=CASES)
def test_lines(text, lines):
    tomllib.loads(text)  # only valid TOML is promised an answer
    assert key_lines(text) == lines


values = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def paths(value, path=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from paths(item, (*path, key))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(), values))
def test_every_key_of_any_document_is_found(table):
    lines = [f"{to_key(key)} = {to_value(value)}" for key, value in table.items()]
    text = "\n".join(lines)
    assert tomllib.loads(text) == table
    found = key_lines(text)
    assert set(found) == set(paths(table))
    for number, key in enumerate(table, 1):
        assert found[key,] == number


@pytest.mark.parametrize(
    ("text", "parts"), [("a", ["a"]), ("a.b", ["a", "b"]), ("\"a.b\".'c' . d", ["a.b", "c", "d"])]
)
def test_split_key(text, parts):
    assert split_key(text) == parts


@pytest.mark.parametrize("text", ["", ".", "a.", "a b", "a=1", 'a."b', "ä", "a\nb"])
def test_split_key_refuses(text):
    with pytest.raises(ValueError, match="key"):
        split_key(text)
