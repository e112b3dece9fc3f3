"""The weights that a checkpoint, a run or a file stands for, by the model's names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hpc_train.checkpoint import Saved, Store
from hpc_train.checkpoint.weights import read_weights
from hpc_train.errors import ConfigError
from hpc_train.train.rundir import find_run
from hpc_train.train.technique import FINAL

MODEL = "model/"
TECHNIQUE = "technique/"


def final_weights(saved: Saved) -> dict[str, torch.Tensor]:
    """The weights and buffers of the model that a checkpoint stands for, by name.

    Those that the run was evaluated with: averages (EMA, SWA), or the best ones of early stopping,
    where it kept some; otherwise those that training goes on with.
    """
    found = below(MODEL, saved.tensors)
    for name, told in saved.manifest.notes.get("techniques", {}).items():  # as they were applied
        if told.get("is_final"):
            found |= below(f"{TECHNIQUE}{name}/{FINAL}", saved.tensors)
    return found


def below(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names begin with `prefix`, by the rest of their names."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def find_weights(source: str) -> tuple[dict[str, torch.Tensor], str]:
    """What a user means by weights, and where they lie.

    Args:
        source: a file, a checkpoint set, a run directory, or the name of runs, of which the
            newest is taken.

    Raises:
        ConfigError: if there is no such thing.
        CheckpointError: if it holds no weights.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return read_weights(path), str(path)
    if (path / "manifest.json").is_file():
        saved = Store(path.parent).load(path)
    else:
        saved = Store(_run(source) / "checkpoints").newest()
    return final_weights(saved), str(saved.path)


def _run(source: str) -> Path:
    try:
        return find_run(source, None)
    except ConfigError:
        pass
    try:
        return find_run("latest", source)
    except ConfigError as error:
        raise ConfigError(
            f'neither a file of weights nor a run ("{source}")',
            where="transfer.source",
            hint="name a file, a run directory, or the run.name of runs in runs/",
        ) from error
