"""A folder of weights and configuration, from which a network can be built anew."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from hpc_train.checkpoint.weights import write_weights
from hpc_train.data.index import FieldInfo
from hpc_train.errors import UsageError
from hpc_train.observe import write_json
from hpc_train.train.datasets import measured, open_alone
from hpc_train.train.exports.place import arriving
from hpc_train.train.survey import is_scaled, normal_inputs
from hpc_train.train.trained import Trained


def write(trained: Trained, run: Path, out: Path) -> None:
    """Write `model.safetensors`, `config.toml` and `model.json`.

    Raises:
        DataError, CheckpointError: if they cannot be written.
    """
    data = trained.config.data
    train = measured(trained.config, open_alone(trained.config)["train"])
    normal = normal_inputs(trained.config, train)
    state = {n: t for n, t in trained.model.state_dict().items() if isinstance(t, torch.Tensor)}
    with arriving(out) as draft:
        draft.mkdir()
        write_weights(draft / "model.safetensors", state)
        shutil.copyfile(run / "config.toml", draft / "config.toml")
        document = {
            "model": {"name": trained.config.model.name, **trained.config.model.arguments},
            "inputs": {n: _told(train.fields[n], data.scale, n in normal) for n in data.inputs},
            "dtype": trained.config.precision.dtype,
            "step": trained.step,
        }
        write_json(draft / "model.json", document)


def _told(info: FieldInfo, scale: float | str, is_normal: bool) -> dict[str, Any]:
    """What is done to an input before the network gets it."""
    if is_normal:
        return {"shape": list(info.shape), "mean": list(info.mean), "std": list(info.std)}
    return {"shape": list(info.shape), "scale": scale}


def example_of(trained: Trained) -> torch.Tensor:
    """Inputs to capture the network with: two samples, random where they are not integers.

    Raises:
        UsageError: if it takes several inputs.
    """
    config = trained.config
    if len(config.data.inputs) != 1:
        raise UsageError(
            f"one input can be exported (data.inputs: {config.data.inputs})",
            hint="export to a folder, whose name has no suffix",
        )
    train, name = open_alone(config)["train"], config.data.inputs[0]
    info = train.fields[name]
    is_number = is_scaled(config.data.scale, info.dtype) or name in normal_inputs(config, train)
    shape = (2, *info.shape)
    if not is_number and not info.dtype.startswith("float"):
        return torch.zeros(shape, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    return torch.rand(shape, generator=generator, dtype=getattr(torch, config.precision.dtype))
