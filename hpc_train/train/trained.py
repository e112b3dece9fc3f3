"""A trained model, taken up from its run directory without ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from hpc_train.config import Config, load
from hpc_train.config.schema.transfer import Transfer
from hpc_train.errors import ConfigError
from hpc_train.tasks import Task
from hpc_train.train import state
from hpc_train.train.build import DTYPES
from hpc_train.train.datasets import open_alone
from hpc_train.train.learning import make_task
from hpc_train.train.network import make_model, reshaped
from hpc_train.train.played import resolve_fields
from hpc_train.train.saving import make_store
from hpc_train.train.survey import survey
from hpc_train.train.weights import final_weights


@dataclass(frozen=True)
class Trained:
    """What a run has learned, as of its newest valid checkpoint.

    Attributes:
        step: updates until then.
    """

    config: Config
    task: Task
    model: nn.Module
    step: int


def open_run(folder: Path, which: str = "last") -> Trained:
    """The model of a run, on the CPU, in evaluation mode.

    Args:
        folder: the run directory.
        which: the checkpoint: "last", the newest valid one; "best"; or "step-N".

    Raises:
        ConfigError: if `folder` is no run directory.
        CheckpointError: if it holds no valid checkpoint.
    """
    if not (folder / "config.toml").is_file():
        raise ConfigError("no run directory", where=str(folder), hint="runs lie in runs/")
    config = resolve_fields(load(folder / "config.toml").config)
    saved = make_store(config, folder).choose(which)
    plain = config.model_copy(update={"transfer": Transfer()})  # its weights are in the set
    plan = survey(config, open_alone(config), 1)
    model = reshaped(plain, make_model(config, plan)).to(DTYPES[config.precision.dtype])
    state.load_model(model, final_weights(saved), str(saved.path))
    task = make_task(config, plan.num_outputs)
    return Trained(config, task, model.eval(), int(saved.manifest.step))
