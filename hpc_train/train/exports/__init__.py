"""Trained networks as files that plain PyTorch loads: one file per format.

model.safetensors + config.toml + model.json    a folder: weights by name, and what they are of
model.pt2     torch.export        torch.export.load(PATH).module()(inputs)
model.pt      TorchScript         torch.jit.load(PATH)(inputs), in C++, too
model.onnx    ONNX                any runtime of it
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from hpc_train.errors import UsageError, unknown
from hpc_train.train.exports import onnx, program, script
from hpc_train.train.exports.place import arriving

__all__ = ["FORMATS", "arriving", "export", "find_format"]

Writer = Callable[[nn.Module, torch.Tensor, Path], None]
Reader = Callable[[Path], Callable[[torch.Tensor], torch.Tensor]]

# suffix -> what writes such a file, and what computes with one
FORMATS: Mapping[str, tuple[Writer, Reader]] = {
    ".pt2": (program.write, program.read),
    ".pt": (script.write, script.read),
    ".onnx": (onnx.write, onnx.read),
}


def find_format(path: Path) -> str:
    """The format that the suffix of a path names.

    Raises:
        UsageError: if it names none.
    """
    if path.suffix not in FORMATS:
        raise UsageError(
            unknown("format", path.suffix, FORMATS),
            where=str(path),
            hint="a name without a suffix makes a folder of weights and configuration",
        )
    return path.suffix


def export(model: nn.Module, example: torch.Tensor, path: Path) -> None:
    """Write a network to a file, after a look whether it computes the same there.

    Args:
        model: on the CPU, in evaluation mode.
        example: inputs, shape (n, ...), n >= 2; any number of samples may be given to the file.
        path: where it goes; its suffix says the format.

    Raises:
        UsageError: if it cannot be exported, or computes something else.
        SetupError: if the format needs a package that is not there.
    """
    write, read = FORMATS[find_format(path)]
    with arriving(path) as draft, torch.no_grad():
        write(model, example, draft)
        again = read(draft)
        for inputs in (example, example[:1]):
            expected = model(inputs)
            if not torch.allclose(again(inputs), expected, rtol=1e-4, atol=1e-5):
                raise UsageError(
                    "the exported network computes something else",
                    where=str(path),
                    hint="export to a folder, and build the network from its code there",
                )
