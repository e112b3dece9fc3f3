"""What one rank measured."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hpc_train.bench.scaling.clock import Step


@dataclass(frozen=True)
class Measured:
    """What one rank measured.

    Attributes:
        seconds: of each step that counts, shape (steps,).
        losses: mean loss of each global batch, warm-up included; on rank 0 alone, and empty where
            the ranks do not train one model.
        steps: where the time went, for sides that can tell; else empty.
    """

    seconds: list[float]
    losses: list[float]
    steps: list[Step] = field(default_factory=list)


def oversubscribed(nodes: tuple[int, ...], cores: list[list[int]], threads: int) -> bool:
    """Whether the ranks of some node have more threads than cores to run them on.

    Args:
        nodes: the node of each rank.
        cores: the cores that each rank may run on.
        threads: of each rank.
    """
    there: dict[int, set[int]] = {}
    for node, mine in zip(nodes, cores, strict=True):
        there.setdefault(node, set()).update(mine)
    return any(count * threads > len(there[node]) for node, count in Counter(nodes).items())
