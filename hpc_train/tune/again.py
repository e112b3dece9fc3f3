"""A trial of a study, to be trained again: `hpc-train run --from-trial STUDY:ID`."""

from __future__ import annotations

from pathlib import Path

from hpc_train.errors import ConfigError, UsageError, unknown
from hpc_train.tune.history import History, replay
from hpc_train.tune.journal import NAME, read
from hpc_train.tune.prepare import ROOT, overrides


def find_study_folder(name: str) -> Path:
    """The folder of a study: its path, or its name in `studies`.

    Raises:
        ConfigError: if there is no such study.
    """
    for folder in (Path(name).expanduser(), ROOT / name):
        if (folder / NAME).is_file():
            return folder
    known = sorted(path.parent.name for path in ROOT.glob(f"*/{NAME}"))
    if known and "/" not in name:
        raise ConfigError(unknown("study", name, known), hint="or name the folder of one")
    raise ConfigError(
        f'no study in "{name}"', hint="name the folder of one: studies/NAME, unless study.dir says"
    )


def read_study(folder: Path) -> History:
    """What happened in a study."""
    return replay(read(folder / NAME))


def find_trial(name: str) -> tuple[Path, list[str]]:
    """The configuration file of a study, and the point of one of its trials as overrides.

    Args:
        name: STUDY:ID, the ID a number or "best".

    Raises:
        ConfigError: if there is no such study or trial.
    """
    study, colon, which = name.rpartition(":")
    if not colon or not (which == "best" or which.isdigit()):
        raise UsageError(
            f'a trial must read STUDY:ID ("{name}")',
            hint="as in studies/mine:12 or studies/mine:best",
        )
    folder = find_study_folder(study)
    history = read_study(folder)
    if which == "best":
        best = history.best(history.about["directions"])
        if not best:
            raise ConfigError("no trial of the study is complete", where=str(folder))
        return folder / "config.toml", overrides(best[0].params)
    if int(which) >= len(history.trials):
        raise ConfigError(
            f"no such trial (trial: {which}, trials: {len(history.trials)})", where=str(folder)
        )
    return folder / "config.toml", overrides(history.trials[int(which)].params)
