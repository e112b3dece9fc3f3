"""From channels that are zero to a network without them."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from hpc_train.compress.graph import CONSUMED, NORMALISED, Coupling, Slot, Space, couple

_STATISTICS = ("running_mean", "running_var")


def reconstruct(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """A copy of a network without the channels that are zero throughout; its outputs are the same.

    Args:
        model: may have such channels, as pruning leaves them behind.
        example: what it takes, shape (n, ...).

    Raises:
        UsageError: if torch.fx cannot trace the model.
    """
    coupling = couple(model, example)
    return shrink(model, coupling, [alive(model, space) for space in coupling.spaces])


def alive(model: nn.Module, space: Space) -> list[int]:
    """The channels of a space that are not zero; at least one."""
    dead = torch.ones(space.size, dtype=torch.bool)
    for slot in space.slots:
        if slot.role == CONSUMED or slot.tensor in _STATISTICS:
            continue
        dead &= _by_channel(model, slot, space.size).eq(0).all(dim=1)
    found = [int(channel) for channel in torch.nonzero(~dead).flatten()]
    return found or [0]


def shrink(model: nn.Module, coupling: Coupling, kept: Sequence[Sequence[int]]) -> nn.Module:
    """A copy of a network with only `kept` channels in each space."""
    smaller = copy.deepcopy(model)
    for space, channels in zip(coupling.spaces, kept, strict=True):
        if len(channels) == space.size:
            continue
        for slot in space.slots:
            _cut(smaller, slot, channels)
    for module in smaller.modules():
        _tell_shape(module)
    return smaller


def importance(model: nn.Module, space: Space) -> torch.Tensor:
    """How much each channel of a space matters, shape (size,), of mean 1.

    The norm of what leads into it times the norm of what leads out of it, and times its scale
    where it is normalised: the same however two layers share their scale.
    """
    score = torch.ones(space.size, dtype=torch.float64)
    roles: dict[str, torch.Tensor] = {}
    for slot in space.slots:
        if slot.tensor in _STATISTICS or (slot.role == NORMALISED and slot.tensor == "bias"):
            continue
        squares = _by_channel(model, slot, space.size).double().square().sum(dim=1)
        roles[slot.role] = roles.get(slot.role, 0) + squares
    for squares in roles.values():
        score = score * squares.sqrt()
    return score / score.mean().clamp_min(torch.finfo(torch.float64).tiny)


def _by_channel(model: nn.Module, slot: Slot, size: int) -> torch.Tensor:
    """A tensor as (channels, all else)."""
    tensor: torch.Tensor = getattr(model.get_submodule(slot.module), slot.tensor)
    return tensor.detach().cpu().movedim(slot.axis, 0).reshape(size, -1)


def _cut(model: nn.Module, slot: Slot, channels: Sequence[int]) -> None:
    module = model.get_submodule(slot.module)
    tensor: torch.Tensor = getattr(module, slot.tensor)
    first = torch.as_tensor(channels, device=tensor.device) * slot.repeat
    steps = torch.arange(slot.repeat, device=tensor.device)
    index = (first[:, None] + steps).flatten()
    smaller = tensor.detach().index_select(slot.axis, index)
    if isinstance(tensor, nn.Parameter):
        setattr(module, slot.tensor, nn.Parameter(smaller, tensor.requires_grad))
    else:
        module.register_buffer(slot.tensor, smaller)


def _tell_shape(module: nn.Module) -> None:
    """Let a layer's attributes say what its tensors are."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd) and not module.transposed:
        depthwise = module.groups > 1 and module.weight.shape[1] == 1
        module.out_channels = module.weight.shape[0]
        module.groups = module.weight.shape[0] if depthwise else module.groups
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, _BatchNorm) and module.affine:
        module.num_features = module.weight.shape[0]
