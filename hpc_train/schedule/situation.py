"""What a policy decides from: the batch, the ranks, and how fast they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import ConfigError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Situation:
    """The state that a policy maps to counts.

    Attributes:
        batch_size: samples of a global batch, >= 1.
        fixed: seconds that each rank needs besides its samples, shape (num_ranks,).
        pace: seconds per sample of each rank, > 0, shape (num_ranks,).
        shares: relative share of each rank, as stated by the user, >= 0; None for equal ones.
        caps: most samples of each rank, shape (num_ranks,); None for no limit.
        quantum: samples of a micro-batch, which go through a device together, >= 1.
        whole: whether ranks shall get whole micro-batches, as far as the batch can be cut so: a
            network that is compiled is compiled anew for every size.
    """

    batch_size: int
    fixed: Floats
    pace: Floats
    shares: Sequence[float] | None = None
    caps: Sequence[int] | None = None
    quantum: int = 1
    whole: bool = False

    @property
    def unit(self) -> int:
        """Samples that are not cut, but for the last ones of a batch."""
        return self.quantum if self.whole else 1

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return len(self.pace)

    @classmethod
    def unknown(
        cls,
        batch_size: int,
        num_ranks: int,
        shares: Sequence[float] | None = None,
        quantum: int = 1,
        *,
        whole: bool = False,
    ) -> Situation:
        """The situation before anything is measured: all ranks are equal."""
        return cls(
            batch_size,
            np.zeros(num_ranks),
            np.ones(num_ranks),
            shares=shares,
            quantum=quantum,
            whole=whole,
        )


@dataclass(frozen=True)
class Policy:
    """A way to split batches.

    Attributes:
        split: from the situation to the samples of each rank, summing to the batch's.
        measures: whether the split follows measured speeds, and so may change during a run.
        reserves: whether a part of each batch is left to whoever is free.
        heeds_noise: whether slow ranks shall be done the earlier, the noisier steps are.
    """

    split: Callable[[Situation], tuple[int, ...]]
    measures: bool
    reserves: bool = False
    heeds_noise: bool = False


def refuse_shares(policy: str, situation: Situation) -> None:
    """Raise ConfigError if shares were stated to a policy that sets them itself."""
    if situation.shares is not None:
        raise ConfigError(
            f"policy {policy} sets the shares itself (schedule.shares: {list(situation.shares)})",
            where="schedule.shares",
            hint='leave schedule.shares out, or set schedule.policy = "static"',
        )
