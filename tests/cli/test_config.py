"""`hpc-train config` and `hpc-train recipes`, as a user calls them."""

import json
import tomllib
from pathlib import Path

import pytest

from hpc_train import recipes
from hpc_train.cli import _main
from hpc_train.config import json_schema, load, starter
from hpc_train.errors import ConfigError

KNOWN = ", ".join(recipes.names())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def call(capsys):
    """Calls a command line: exit code, standard output, standard error."""
    return lambda *arguments: (_main(list(arguments)), *capsys.readouterr())


def test_init_writes_a_file_that_can_be_shown(call):
    assert call("config", "init") == (
        0,
        "wrote train.toml; train with: hpc-train run train.toml -n 2\n",
        "",
    )
    assert Path("train.toml").read_text() == starter()
    assert call("config", "show", "train.toml")[0] == 0


def test_init_does_not_overwrite(call):
    Path("mine.toml").write_text("precious")
    for extra in ([], ["--dry-run"]):
        assert call("config", "init", "mine.toml", *extra) == (
            2,
            "",
            "error: mine.toml: the file exists already, nothing was written\n"
            "hint: name another one, or remove it first\n",
        )
    assert Path("mine.toml").read_text() == "precious"


def test_init_dry_run_prints_and_writes_nothing(call, folder):
    assert call("config", "init", "--dry-run") == (0, starter(), "")
    assert list(folder.iterdir()) == []


def test_init_where_nothing_can_be_written(call):
    assert call("config", "init", "no/such/c.toml") == (
        1,
        "",
        "error: no/such/c.toml: cannot write it: No such file or directory\n",
    )


def test_show_prints_a_configuration_with_origins(call):
    code, out, _ = call("config", "show", "digits-cnn", "optimizer.lr=0.5", "run.steps=3")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == f"# {recipes.find('digits-cnn')}"
    assert "lr = 0.5 # override" in lines
    assert "batch_size = 64 # digits-cnn.toml:12" in lines
    assert "seed = 0 # default" in lines
    Path("again.toml").write_text(out)
    expected = load(recipes.find("digits-cnn"), ["optimizer.lr=0.5", "run.steps=3"]).config
    assert load(Path("again.toml")).config == expected


def test_show_as_json(call):
    code, out, _ = call("config", "show", "digits-mlp", "run.seed=7", "--json")
    document = json.loads(out)
    assert code == 0
    assert document["schema_version"] == 1
    assert document["config"]["run"]["seed"] == 7
    assert document["config"]["model"]["activation"] == "tanh"
    assert document["origins"]["run.seed"] == "override"
    assert len(document["digest"]) == 64


def test_show_names_every_mistake(call):
    Path("bad.toml").write_text("[run]\nsed = 1\n[data]\ntrain = 5\ninputs = 'x'\n")
    code, out, err = call("config", "show", "bad.toml", "modl.name=cnn")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: bad.toml:2: unknown key run.sed",
        "hint: did you mean run.seed?",
        "error: bad.toml:4: data.train must be a text (data.train: 5)",
        'hint: texts are quoted: data.train = "5"; for a shell: data.train=\'"5"\'',
        "error: bad.toml: model.name is required",
        "hint: name: a built-in network, or my_package.module:function",
        "error: override: unknown section [modl]",
        "hint: did you mean [model]?",
    ]


def test_schema(call):
    code, out, _ = call("config", "schema")
    assert code == 0
    assert json.loads(out) == json_schema()
    assert call("config", "schema", "s.json")[0] == 0
    assert Path("s.json").read_text() == out
    assert call("config", "schema", "s.json")[0] == 2


def test_recipes_are_listed(call):
    code, out, _ = call("recipes")
    assert code == 0
    listed = [line.split()[0] for line in out.splitlines()]
    assert listed == sorted(file.stem for file in Path(recipes.__file__).parent.glob("*.toml"))
    assert {"digits-cnn", "digits-mlp", "mnist-cnn"} <= set(listed)
    document = json.loads(call("recipes", "--json")[1])
    assert document["schema_version"] == 1
    for row in document["recipes"]:
        assert row["description"] in out
        assert tomllib.loads(Path(row["path"]).read_text())["run"]["name"] == row["name"]


def test_find_a_path_or_a_recipe(folder):
    Path("c.toml").touch()
    Path("plain").touch()
    assert recipes.find("c.toml") == Path("c.toml")
    assert recipes.find("plain") == Path("plain")
    assert recipes.find(str(folder / "c.toml")) == folder / "c.toml"
    assert recipes.find("digits-cnn").name == "digits-cnn.toml"


def test_a_recipe_wins_over_a_folder_of_its_name():
    Path("digits-cnn").mkdir()
    assert recipes.find("digits-cnn").suffix == ".toml"
    with pytest.raises(ConfigError, match="is a folder"):
        recipes.find("./digits-cnn")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("digit-cnn", "did you mean 'digits-cnn'?", "name one of them"),
        ("xyz", f'unknown recipe "xyz", known: {KNOWN}', "TOML file"),
        ("digits-cnn.toml", 'no such file: "digits-cnn.toml"', "name it without .toml"),
        ("trainn.toml", 'no such file: "trainn.toml"', "did you mean train.toml?"),
        ("runs/x/config.toml", "no such file", "hpc-train config init"),
        ("run", 'must be a file ("run" is a folder)', "run/config.toml"),
        (".", "is a folder", None),
        ("run.seed=3", 'must come before overrides ("run.seed=3")', "recipe first"),
    ],
)
def test_what_cannot_be_found(name, message, hint):
    Path("train.toml").touch()
    Path("run").mkdir()
    Path("run/config.toml").touch()
    with pytest.raises(ConfigError) as caught:
        recipes.find(name)
    assert message in caught.value.message
    assert hint is None or hint in caught.value.hint
