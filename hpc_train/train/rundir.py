"""Run directories: where a run lies, and how an earlier one is found."""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hpc_train.config import Config
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.observe import write_json

ROOT = Path("runs")
_SUFFIX = re.compile(r"-\d{8}-\d{6}-[0-9a-f]{4}$")


def new_run_dir(config: Config) -> Path:
    """The directory of a new run: `run.dir`, or `runs/<name>-<time>-<id>`."""
    if config.run.dir is not None:
        return Path(config.run.dir).expanduser()
    now = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    return ROOT / f"{config.run.name}-{now}-{uuid.uuid4().hex[:4]}"


def find_run(name: str, run_name: str | None) -> Path:
    """The run directory to resume: a path, the name of one in `runs`, or "latest".

    Args:
        name: what the user said.
        run_name: for "latest": only runs of this name; None for any.

    Raises:
        ConfigError: if there is no such run.
    """
    if name != "latest":
        for path in (Path(name), ROOT / name):
            if (path / "config.toml").is_file():
                return path
        raise ConfigError(
            f'no run in "{name}"', hint="name a run directory, one in runs, or latest"
        )
    runs = [
        path
        for path in ROOT.glob("*")
        if (path / "config.toml").is_file() and (not run_name or _name_of(path) == run_name)
    ]
    if not runs:
        raise ConfigError(
            f"no run {run_name + ' ' if run_name else ''}in {ROOT.absolute()}",
            where="latest",
            hint="start from the folder in which the run was started, or name its directory",
        )
    return max(runs, key=lambda path: (path / "config.toml").stat().st_mtime_ns)


def find_submitted(name: str) -> Path:
    """The run directory that a path or a name in `runs` means, also of a run that never began.

    Raises:
        ConfigError: if there is no such run.
    """
    for path in (Path(name), ROOT / name):
        if any((path / file).is_file() for file in ("config.toml", "slurm.json")):
            return path
    raise ConfigError(
        f'no run in "{name}"', hint=f"name a run directory, or one in {ROOT.absolute()}"
    )


def _name_of(path: Path) -> str:
    """The `run.name` of a directory that `new_run_dir` named."""
    return _SUFFIX.sub("", path.name)


def prepare(folder: Path, config_text: str, facts: dict[str, Any], *, resuming: bool) -> None:
    """Make a run directory and save what belongs to its beginning.

    Raises:
        HpcTrainError: if it holds another run, or cannot be written.
    """
    if not resuming and any((folder / name).exists() for name in ("metrics.jsonl", "checkpoints")):
        raise ConfigError(
            "run directory holds a run already",
            where=str(folder),
            hint=f"go on with it by --resume {folder}, or choose another run.dir",
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").unlink(missing_ok=True)
        draft = folder / "config.toml.tmp"
        draft.write_text(config_text, encoding="utf-8")
        draft.replace(folder / "config.toml")
        write_json(folder / "environment.json", facts)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that names the run directory.

    Raises:
        HpcTrainError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise HpcTrainError(
            f"cannot write the run directory: {error.strerror or error}",
            where=str(error.filename or folder),
            hint="free space there, or choose another place with run.dir=PATH",
        ) from error
