"""torch.compile: a network as fused kernels, where the machine can build them."""

from __future__ import annotations

import torch
from torch import nn

from hpc_train.errors import SetupError

WHERE = "device.compile"


def compile_network(model: nn.Module, device: torch.device) -> None:
    """Let the network be compiled when it is first called; names and state do not change.

    One without a `forward` of its own is compiled part by part.

    Raises:
        SetupError: if nothing can be compiled here, such as without a C++ compiler.
    """
    check_compiler(device)
    whole = type(model).forward is not nn.Module.forward
    for part in [model] if whole else model.children():
        part.compile()


def check_compiler(device: torch.device) -> None:
    """Compile something small.

    Raises:
        SetupError: with the reason, in a line, if it fails.
    """
    try:
        torch.compile(_tried, fullgraph=True)(torch.zeros(64, device=device))
    except Exception as error:
        raise SetupError(
            f"torch.compile does not work here ({_reason(error)})",
            where=WHERE,
            hint="install a C++ compiler and Python's headers (CXX names another compiler), or "
            f"set {WHERE}=false",
        ) from error


def _tried(tensor: torch.Tensor) -> torch.Tensor:
    return (tensor * 2 + 1).tanh()


def _reason(error: BaseException) -> str:
    """The first line of the innermost cause that says something."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
