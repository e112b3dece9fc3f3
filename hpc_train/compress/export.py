"""A network as a file that plain PyTorch loads: `torch.jit.load("model.pt")`, also in C++.

TorchScript is the one format of torch that holds int8 kernels.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch
from torch import nn

from hpc_train.errors import UsageError


def export(model: nn.Module, example: torch.Tensor, path: Path) -> int:
    """Write a network to a file, and read it back to see that it computes the same.

    Args:
        model: on the CPU, in evaluation mode.
        example: what it takes, shape (n, ...), n >= 2.

    Returns:
        The size of the file in bytes.

    Raises:
        UsageError: if the file would compute something else, for this batch or one of 1 sample.
    """
    partial = path.with_name(f".{path.name}.partial")
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        frozen = torch.jit.freeze(_traced(model, example, path).eval())
        torch.jit.save(frozen, str(partial))
    loaded = load_exported(partial)
    if not all(_same(loaded, model, inputs) for inputs in (example, example[:1])):
        partial.unlink()
        raise UsageError(
            "the exported model must compute what the model does, and does not",
            where=str(path),
            hint="write its forward without branches on values or on the size of the batch",
        )
    os.replace(partial, path)
    return path.stat().st_size


def load_exported(path: Path) -> nn.Module:
    """The network of a file, as plain PyTorch loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded: nn.Module = cast(Callable[..., nn.Module], torch.jit.load)(str(path))
    return loaded


def _traced(model: nn.Module, example: torch.Tensor, path: Path) -> torch.jit.ScriptModule:
    try:
        trace = cast(Callable[..., torch.jit.ScriptModule], torch.jit.trace)
        return trace(model, example, check_trace=False)
    except Exception as error:
        raise UsageError(
            f"the model cannot be traced ({str(error).splitlines()[0]})", where=str(path)
        ) from error


def _same(loaded: nn.Module, model: nn.Module, inputs: torch.Tensor) -> bool:
    """Whether a file computes what the model does, as far as it can be computed."""
    with torch.no_grad():
        try:
            outputs = loaded(inputs)
        except RuntimeError:  # such as a batch size that was written into the file
            return False
        return torch.allclose(outputs, model(inputs), rtol=1e-4, atol=1e-5)
