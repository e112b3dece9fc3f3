"""Activation checkpointing: forget what blocks computed, and compute it again in backward.

    forward    block 0 | block 1 | block 2        only the inputs of blocks are kept
    backward             again 2, its gradient, again 1, its gradient, ...

Chen et al., "Training deep nets with sublinear memory cost", 2016; torch.utils.checkpoint, not
re-entrant: the second run draws the same random numbers as the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from hpc_train.errors import ConfigError

WHERE = "device.activation_checkpointing"
_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def checkpoint_activations(model: nn.Module, which: str | Sequence[str]) -> list[str]:
    """Let blocks of `model` keep their inputs alone; gives the blocks, by name.

    Names, state and results of the model do not change; what it takes is time, for a second
    forward.

    Args:
        model: changed in place.
        which: patterns of the names of modules, the outermost of those that match; "auto" for the
            blocks of the outermost lists; a plain chain of layers is cut into about as many
            segments as each has layers.

    Raises:
        ConfigError: if there is no such block.
    """
    if isinstance(which, str):
        blocks = list(_blocks(model, ""))
        chains = [] if blocks else list(_chains(model))
    else:
        blocks, chains = _matching(model, which), []
    for name in blocks:
        block = model.get_submodule(name)
        block.__class__ = _checkpointed(type(block))  # type: ignore[arg-type]
    for name in chains:
        chain = model.get_submodule(name)
        chain.__class__ = _segmented(type(chain))  # type: ignore[arg-type]
    if not blocks and not chains:
        names = [name for name, _ in model.named_modules() if name]
        raise ConfigError(
            f"it must name modules of the network, with blocks to compute again (value: {which})",
            where=WHERE,
            hint=f"they are such as {', '.join(names[:3])}" if names else "leave it out",
        )
    return blocks or chains


def _blocks(module: nn.Module, path: str) -> Iterator[str]:
    """The modules with parts of their own in the outermost lists."""
    for name, child in module.named_children():
        whole = f"{path}{name}"
        inner = [c for c in child.children() if any(True for _ in c.children())]
        if isinstance(child, _LISTS) and (inner or not isinstance(child, nn.Sequential)):
            yield from _blocks(child, f"{whole}.")
        elif isinstance(module, _LISTS) and any(True for _ in child.children()):
            yield whole


def _chains(model: nn.Module) -> Iterator[str]:
    """The outermost chains of plain layers; the network itself is called ""."""
    if isinstance(model, nn.Sequential):
        yield ""
        return
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential) and len(child) > 1:
            yield name


def _matching(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """The modules whose names match, without those inside others that do."""
    found: list[str] = []
    for name, _ in model.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if name and not inside and any(fnmatchcase(name, pattern) for pattern in patterns):
            found.append(name)
    return found


@cache
def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    """A class like `kind` whose forward keeps its inputs alone; also after a deep copy."""

    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return _forgetting([self], partial(kind.forward, self), *args, **kwargs)

    return type(f"Checkpointed{kind.__name__}", (kind,), {"forward": forward})


@cache
def _segmented(kind: type[nn.Module]) -> type[nn.Module]:
    """The same for a chain: one segment after the other."""

    def forward(self: nn.Module, value: Any) -> Any:
        layers = list(self.children())
        size = math.ceil(math.sqrt(len(layers)))
        for start in range(0, len(layers), size):
            segment = layers[start : start + size]
            value = _forgetting(segment, partial(_through, segment), value)
        return value

    return type(f"Segmented{kind.__name__}", (kind,), {"forward": forward})


def _through(layers: Sequence[nn.Module], value: Any) -> Any:
    for layer in layers:
        value = layer(value)
    return value


def _forgetting(
    modules: Sequence[nn.Module], function: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    """What `function` makes of the arguments, keeping them alone where gradients are wanted."""
    if not torch.is_grad_enabled():
        return function(*args, **kwargs)
    norms = [m for module in modules for m in module.modules() if isinstance(m, _NormBase)]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    if not buffers:
        return checkpoint(function, *args, use_reentrant=False, **kwargs)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _unchanged(buffers)

    return checkpoint(function, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def _unchanged(buffers: Sequence[torch.Tensor]) -> Iterator[None]:
    """Let running statistics be: the first run has counted this batch."""
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, before, strict=True):
                buffer.copy_(value)
