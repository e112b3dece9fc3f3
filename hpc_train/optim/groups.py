"""Which parameters have a rate or a weight decay of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class Group:
    """What one or several parameters have in common: factor on the rate; whether they decay; after
    how many epochs they are trained."""

    rate: float = 1.0
    decays: bool = True
    opens: int = 0


@dataclass(frozen=True)
class Grouping:
    """How parameters are told apart.

    Attributes:
        rates: factor on the learning rate by pattern of a parameter's name (as file names: `*`,
            `?`, `[...]`); the first that matches counts.
        depth_decay: factor on the rate from each block of the network to the one before it, in
            (0, 1]; the last has 1 (Howard and Ruder, ULMFiT, ACL 2018).
        exempt: ids of parameters without weight decay.
        opens: after how many epochs parameters are trained, by name, where that is not 0.
    """

    rates: Mapping[str, float] = field(default_factory=dict)
    depth_decay: float = 1.0
    exempt: frozenset[int] = frozenset()
    opens: Mapping[str, int] = field(default_factory=dict)

    def groups(self, named: Sequence[tuple[str, nn.Parameter]]) -> dict[str, Group]:
        """The group of each parameter, by name."""
        blocks = list(dict.fromkeys(block_of(name) for name, _ in named))
        above = {block: len(blocks) - 1 - place for place, block in enumerate(blocks)}
        return {
            name: Group(
                rate=self._factor(name) * self.depth_decay ** above[block_of(name)],
                decays=id(parameter) not in self.exempt,
                opens=self.opens.get(name, 0),
            )
            for name, parameter in named
        }

    def _factor(self, name: str) -> float:
        return next((f for pattern, f in self.rates.items() if fnmatchcase(name, pattern)), 1.0)


def block_of(name: str) -> str:
    """The block of a network that a parameter belongs to: its name up to the first number in it.

    "blocks.3.norm.weight" belongs to "blocks.3", "2.bias" to "2", "head.weight" to "head".
    """
    parts = name.split(".")
    end = next((place for place, part in enumerate(parts) if part.isdigit()), 0)
    return ".".join(parts[: end + 1])


def norms_and_biases(model: nn.Module) -> frozenset[int]:
    """The ids of the parameters of normalisations, and of all that are vectors or numbers."""
    norms = (m for m in model.modules() if isinstance(m, _NORMS))
    found = {id(p) for norm in norms for p in norm.parameters(recurse=False)}
    return frozenset(found | {id(p) for p in model.parameters() if p.dim() <= 1})


def unmatched(patterns: Iterable[str], names: Sequence[str]) -> list[str]:
    """The patterns that match none of the names."""
    return [p for p in patterns if not any(fnmatchcase(name, p) for name in names)]
