"""ONNX: a network for any runtime that knows the format; needs the extra `onnx`."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hpc_train.errors import SetupError, UsageError


def write(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Export in one file, with a first axis of any length.

    Raises:
        SetupError: without the packages of the extra.
        UsageError: if torch cannot capture the network.
    """
    for package in ("onnx", "onnxscript"):
        _need(package)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                (example,),
                str(path),
                dynamic_shapes=({0: torch.export.Dim("num_samples")},),
                input_names=["input"],
                output_names=["output"],
                external_data=False,
                dynamo=True,
                verbose=False,
            )
    except OSError:
        raise
    except Exception as error:
        raise UsageError(
            f"the network cannot be exported to ONNX: {str(error).splitlines()[0]}",
            hint="try OUT.pt2, or a folder",
        ) from error


def read(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network in the file, as ONNX's own reference computes it."""
    session = importlib.import_module("onnx.reference").ReferenceEvaluator(str(path))

    def run(inputs: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])

    return run


def _need(package: str) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise SetupError(
            f"ONNX needs the package {package}",
            hint="python -m pip install 'hpc-train[onnx]'",
        ) from error
