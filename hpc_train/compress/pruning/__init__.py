"""Which weights go: one file per rule. Masks only ever lose weights, and are the same everywhere.

A rule sees weights that are zero where they are gone already; it decides purely.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from hpc_train.compress.pruning.channels import Channels
from hpc_train.compress.pruning.magnitude import Magnitude
from hpc_train.compress.pruning.pattern import Pattern
from hpc_train.compress.pruning.saliency import Saliency
from hpc_train.compress.pruning.sensitivity import Sensitivity
from hpc_train.errors import ConfigError, unknown

Masks = dict[str, torch.Tensor]


class Pruner(Protocol):
    """A rule.

    Attributes:
        names: the parameters that it prunes.
        wants_gradients: whether it needs the mean squares of gradients.
    """

    names: tuple[str, ...]
    wants_gradients: bool

    def masks(
        self, masks: Mapping[str, torch.Tensor], squares: Mapping[str, torch.Tensor], part: float
    ) -> Masks:
        """The masks when `part` of all pruning is done, true where a weight stays.

        Args:
            masks: those before, by parameter, of its shape.
            squares: mean squares of gradients, where it wants them.
            part: in [0, 1].
        """
        ...


@dataclass(frozen=True)
class Rule:
    """What rules are made of.

    Attributes:
        model: the network; weights are read whenever masks are made.
        example: what it takes, shape (n, ...).
        amount: the part of the weights, for channels of the operations, that goes in the end.
        keep, of: such as 2 of 4 neighbours, for patterns.
        multiple: for channels: how many go at a time.
        passing: modules that channels pass unchanged, see `couple`.
    """

    model: nn.Module
    example: torch.Tensor
    amount: float
    keep: int = 2
    of: int = 4
    multiple: int = 8
    passing: tuple[type[nn.Module], ...] = ()


def weights_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights of convolutions and linear layers, by name; tied ones once."""
    found: dict[str, torch.Tensor] = {}
    for name, parameter in model.named_parameters():
        home = model.get_submodule(name.rpartition(".")[0])
        if isinstance(home, (_ConvNd, nn.Linear)) and name.endswith("weight"):
            found[name] = parameter
    return found


PRUNERS: dict[str, Callable[[Rule], Pruner]] = {
    "magnitude": lambda rule: Magnitude(weights_of(rule.model), rule.amount),
    "saliency": lambda rule: Saliency(weights_of(rule.model), rule.amount),
    "sensitivity": lambda rule: Sensitivity(weights_of(rule.model), rule.amount),
    "pattern": lambda rule: Pattern(weights_of(rule.model), rule.keep, rule.of),
    "channels": lambda rule: Channels(
        rule.model, rule.example, rule.amount, rule.multiple, rule.passing
    ),
}


def make_pruner(name: str, rule: Rule) -> Pruner:
    """The rule of that name.

    Raises:
        ConfigError: if there is none, or the network has nothing that it could prune.
    """
    if name not in PRUNERS:
        raise ConfigError(unknown("pruning", name, PRUNERS), where="compress.prune")
    pruner = PRUNERS[name](rule)
    if not pruner.names:
        raise ConfigError(
            f"the model has nothing to prune by {name}",
            where="compress.prune",
            hint="a network needs convolutions or linear layers, and for channels more than one",
        )
    return pruner


def digest(masks: Mapping[str, torch.Tensor]) -> str:
    """A hash of masks, to be compared among ranks."""
    found = hashlib.sha256()
    for name in sorted(masks):
        found.update(name.encode())
        found.update(masks[name].cpu().to(torch.uint8).contiguous().numpy().tobytes())
    return found.hexdigest()
