"""torch.export: the graph of a network, with the number of samples left open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hpc_train.errors import UsageError


def write(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Export, with a first axis of any length.

    Raises:
        UsageError: if torch cannot capture the network.
    """
    try:
        dynamic = ({0: torch.export.Dim("num_samples")},)
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=dynamic), path)
    except OSError:
        raise
    except Exception as error:
        raise UsageError(
            f"torch.export cannot capture the network: {str(error).splitlines()[0]}",
            hint="try OUT.pt, or a folder",
        ) from error


def read(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network in the file."""
    found: Callable[[torch.Tensor], torch.Tensor] = torch.export.load(path).module()
    return found
