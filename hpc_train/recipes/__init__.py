"""Configurations that ship with the package: real examples, each one TOML file in this folder.

The first line of a file is a comment that says what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import ConfigError, nearest, unknown

__all__ = ["Recipe", "find", "find_study", "names", "recipes", "studies"]

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Recipe:
    """An example: its name, the file that holds it, and one line on what it does."""

    name: str
    path: Path
    description: str


def recipes(folder: Path = _FOLDER) -> list[Recipe]:
    """All recipes in `folder`, by name; without an argument, those that ship with the package."""
    paths = sorted(folder.glob("*.toml"), key=lambda path: path.stem)
    return [Recipe(path.stem, path, _first_line(path)) for path in paths]


def names() -> list[str]:
    """The names of the recipes that ship with the package."""
    return [recipe.name for recipe in recipes()]


def studies() -> list[Recipe]:
    """The example studies that ship with the package, by name."""
    return recipes(_FOLDER / "studies")


def find_study(name_or_path: str) -> Path:
    """The study that a user means: the path of a TOML file, or the name of an example.

    Raises:
        ConfigError: if there is neither.
    """
    known = {study.name: study.path for study in studies()}
    path = Path(name_or_path).expanduser()
    if name_or_path in known:
        return known[name_or_path]
    if path.is_file():
        return path
    if "/" not in name_or_path and path.suffix != ".toml":
        raise ConfigError(unknown("study", name_or_path, known), hint="or name a TOML file")
    raise ConfigError(f'no such file: "{name_or_path}"', hint="docs/tuning.md shows a study")


def find(name_or_path: str, folder: Path = _FOLDER) -> Path:
    """The configuration file that a user means: the path of one, or the name of a recipe.

    A recipe wins over a file of the same name; `./NAME` is always a path.

    Raises:
        ConfigError: if there is neither, or the path is not a file.
    """
    known = {recipe.name: recipe.path for recipe in recipes(folder)}
    if name_or_path in known:
        return known[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        inside = path / "config.toml"
        raise ConfigError(
            f'a configuration must be a file ("{name_or_path}" is a folder)',
            hint=f"name the file in it: {inside}" if inside.is_file() else None,
        )
    if path.exists():
        return path
    if "=" in name_or_path:
        raise ConfigError(
            f'a configuration must come before overrides ("{name_or_path}")',
            hint="name a TOML file or a recipe first",
        )
    if "/" not in name_or_path and path.suffix != ".toml":
        raise ConfigError(
            unknown("recipe", name_or_path, known),
            hint="name one of them, or the path of a TOML file",
        )
    raise ConfigError(f'no such file: "{name_or_path}"', hint=_near_file(path, list(known)))


def _near_file(path: Path, known: list[str]) -> str:
    """What may have been meant by a path at which nothing lies."""
    if path.stem in known:
        return f"{path.stem} is a recipe: name it without .toml"
    try:
        here = [other.name for other in path.parent.glob("*.toml")]
    except OSError:
        here = []
    like = nearest(path.name, here)
    if like:
        return f"did you mean {path.with_name(like)}?"
    return "hpc-train config init writes a first one, hpc-train recipes lists examples"


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
