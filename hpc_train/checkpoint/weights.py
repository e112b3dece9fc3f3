"""Weights in a file, by name: safetensors, or a state_dict that torch saved."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from hpc_train.checkpoint import layout
from hpc_train.errors import CheckpointError

_INSIDE = ("state_dict", "model_state_dict", "model")  # where others keep them


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file by name, on the CPU.

    A file other than `.safetensors` is read by `torch.load(weights_only=True)`, which runs no code
    of the file.

    Raises:
        CheckpointError: if it cannot be read, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read: {error.strerror}", where=str(path)) from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, KeyError) as error:
        raise CheckpointError(
            f"not a file of weights: {str(error).splitlines()[0] if str(error) else error!r}",
            where=str(path),
            hint="save it by torch.save(model.state_dict(), PATH), or as safetensors",
        ) from error
    for name in _INSIDE:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    if not isinstance(found, Mapping):
        raise CheckpointError(
            f"a file of weights must hold tensors by name (held: {type(found).__name__})",
            where=str(path),
        )
    tensors = {str(n): t.detach() for n, t in found.items() if isinstance(t, torch.Tensor)}
    if not tensors:
        raise CheckpointError("no tensors in it", where=str(path))
    return tensors


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a safetensors file; it is there completely or not at all.

    Raises:
        CheckpointError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        layout.write(draft, tensors)
        draft.replace(path)
    except OSError as error:
        raise CheckpointError(f"cannot write: {error.strerror}", where=str(path)) from error
    finally:
        draft.unlink(missing_ok=True)
