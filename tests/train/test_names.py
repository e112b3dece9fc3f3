"""Names and arguments: found where they are, or told what is wrong with them."""

import sys

import pytest

from hpc_train.errors import ConfigError
from hpc_train.train.names import bind, find


def build(width, depth=2, *, activation="relu"):
    """A builder."""


def open_ended(input_shape, **rest):
    """A builder that takes anything."""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder of modules that the user starts from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_known_names_and_modules_of_the_current_folder(here):
    assert find("model", "build", {"build": build}) is build
    (here / "own_nets").mkdir()
    (here / "own_nets/deep.py").write_text("def net():\n    return 7\n")
    assert find("model", "own_nets.deep:net", {})() == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mpl", 'unknown model "mpl", known: cnn, mlp; did you mean .mlp.'),
        ("no_such_module:net", 'no module "no_such_module"'),
        ("own_module:nett", 'module "own_module" has no "nett"'),
        ("own_module:NUMBER", "cannot be called"),
        (":net", "must read my_package.module:function"),
        ("own_module:", "must read my_package.module:function"),
        (".own_module:net", "must read my_package.module:function"),
        ("own/module.py:net", "must read my_package.module:function"),
    ],
)
def test_names_that_lead_nowhere(here, name, message):
    (here / "own_module.py").write_text("NUMBER = 3\ndef net():\n    pass\n")
    with pytest.raises(ConfigError, match=message) as caught:
        find("model", name, {"mlp": build, "cnn": build})
    assert caught.value.where == "model.name"
    if "nett" in name:
        assert caught.value.hint == "did you mean own_module:net?"


def test_what_breaks_inside_a_users_module_keeps_its_traceback(here):
    (here / "own_broken.py").write_text("import json\njson.no_such_function\n")
    with pytest.raises(AttributeError, match="no_such_function"):
        find("model", "own_broken:net", {})
    (here / "own_broken_import.py").write_text("import own_missing\n")
    with pytest.raises(ModuleNotFoundError, match="own_missing"):
        find("model", "own_broken_import:net", {})
    (here / "own_nets.py").write_text("import own\n")
    with pytest.raises(ModuleNotFoundError, match="No module named 'own'"):
        find("model", "own_nets:net", {})


def test_arguments_are_bound_and_offers_taken_where_wanted():
    offered = {"width": 3, "input_shape": (1,)}
    assert bind("model", build, {"depth": 4}, offered) == {"width": 3, "depth": 4}
    assert bind("model", build, {"width": 5}, offered) == {"width": 5}
    assert bind("model", open_ended, {"any": 1}, offered) == {"input_shape": (1,), "any": 1}


def test_every_wrong_argument_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        bind("model", build, {"dept": 4, "x": 1}, {})
    assert caught.value.lines() == [
        "unknown key model.dept, build takes: width, depth, activation; did you mean model.depth?",
        "unknown key model.x, build takes: width, depth, activation",
        "build needs model.width",
    ]
