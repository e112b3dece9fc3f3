"""TorchScript: a trace of the network, which C++ loads, too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hpc_train.errors import UsageError


def write(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Trace and save.

    Raises:
        UsageError: if torch cannot trace the network.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is deprecated in favour of torch.export
            traced = torch.jit.trace(model, (example,))  # type: ignore[no-untyped-call]
            torch.jit.save(traced, str(path))
    except OSError:
        raise
    except Exception as error:
        raise UsageError(
            f"TorchScript cannot trace the network: {str(error).splitlines()[0]}",
            hint="try OUT.pt2, or a folder",
        ) from error


def read(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network in the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: Callable[[torch.Tensor], torch.Tensor] = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return found
