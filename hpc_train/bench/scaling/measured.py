"""What one rank measured."""

from __future__ import annotations

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
