"""What the documents say is so: links, commands, recipes, code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from hpc_train import recipes
from hpc_train.cli import COMMANDS, cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = [path for path in ROOT.rglob("*.md") if not any(p.startswith(".") for p in path.parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


def test_every_path_of_the_tree_is_there():
    section = README[README.index("## The tree") : README.index("## Contributing")]
    paths = re.findall(r"`([a-z_./]+)`", section)
    assert len(paths) > 12
    for path in paths:
        assert (ROOT / path).exists() or path == "build.py", path
    rooms = {p.parent.name for p in (ROOT / "hpc_train").glob("*/__init__.py")}
    assert rooms <= set(re.findall(r"hpc_train/(\w+)/", section))


def commands():
    """The hpc-train commands of the README's code blocks, words only."""
    found = []
    for block in re.findall(r"```\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            text = line.split("#")[0].split("&&")[-1].strip()
            at = re.search(r"(^|\s)hpc-train\s", text)
            if at and not text.startswith("python"):
                found.append(shlex.split(text[at.start() :].strip()))
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_commands_of_the_readme_are_understood(words):
    command, arguments = cli, list(words[1:])
    while isinstance(command, click.Group):
        context = click.Context(command, info_name=words[0])
        _, command, arguments = command.resolve_command(context, arguments)
    options = {o for p in command.params for o in (*p.opts, *p.secondary_opts)}
    for word in words:
        if word.startswith("-"):
            assert word in options, word


def test_every_command_is_in_the_help_and_has_a_module():
    for module, _ in COMMANDS.values():
        assert (ROOT / "hpc_train" / "cli" / f"{module}.py").exists()


def test_every_recipe_is_listed():
    for name in recipes.names():
        assert f"`{name}`" in README, name


def test_the_readmes_python_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 4
    script = next(block for block in blocks if "Trainer(" in block)
    (tmp_path / "train.py").write_text(script.replace('"epochs": 10', '"epochs": 3'))
    ended = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=90
    )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.split()[-1]) > 0.7
    package = tmp_path / "my_package"
    package.mkdir()
    for block in blocks:
        if block.startswith("# my_package/"):
            (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    for overrides in (
        ["model.name=my_package.nets:build", "model.width=16"],
        ["task.name=my_package.tasks:Huber", "task.delta=0.5", "model.num_classes=1"],
        [
            "model.name=my_package.probing:build",
            "task.name=my_package.probing:Probing",
            "optimizer.phases.restore.lr=1e-3",
        ],
    ):
        (tmp_path / "my.toml").write_text(MINE)
        ended = subprocess.run(
            [sys.executable, "-m", "hpc_train", "run", "my.toml", "run.steps=3", *overrides],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert ended.returncode == 0, ended.stderr


MINE = """\
[data]
train = "builtin:digits/train"
inputs = "image"
targets = "label"

[model]
name = "mlp"
"""


@pytest.mark.parametrize("script", sorted((ROOT / "slurm").glob("*.sbatch")), ids=lambda s: s.name)
def test_batch_scripts_are_sound_and_explain_every_directive(script):
    checked = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    lines = script.read_text().splitlines()
    directives = [line for line in lines if line.startswith("#SBATCH")]
    assert any("--time" in line for line in directives)
    assert any("--output" in line for line in directives)
    assert "set -" in script.read_text()
    assert f"slurm/{script.name}" in README
