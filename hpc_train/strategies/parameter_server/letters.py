"""What server and workers write to each other: headers as JSON, weights and gradients as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.plan import Batch, Work
from hpc_train.world import Json


@dataclass(frozen=True)
class Push:
    """The gradient of one range, but for the arrays.

    Attributes:
        work: the range.
        tally: what it adds up to, as `Layout.pack` gives it.
        version: updates that its weights had seen.
        factor: of the learning rate in its batch.
        seconds: what its rank was busy for.
    """

    work: Work
    tally: NDArray[np.float64]
    version: int
    factor: float
    seconds: float

    def told(self) -> Json:
        """As a header."""
        return {
            "kind": "push",
            "work": work_told(self.work),
            "tally": self.tally.tolist(),
            "version": self.version,
            "factor": self.factor,
            "seconds": self.seconds,
        }

    @classmethod
    def heard(cls, header: Json) -> Push:
        """What `told` told."""
        return cls(
            work_heard(header["work"]),
            np.array(header["tally"]),
            header["version"],
            header["factor"],
            header["seconds"],
        )


@dataclass(frozen=True)
class Ending:
    """Where all ranks are when the work of a segment ends, the same on all of them.

    Attributes:
        batch: the next batch.
        updates: how many updates were made in the segment.
        whole: whether all batches before that one have their updates, and no later one.
        flags: what ranks wished for.
    """

    batch: int
    updates: int
    whole: bool
    flags: tuple[str, ...]

    def told(self, *, failed: bool) -> Json:
        """As a header."""
        return {"kind": "failed" if failed else "end", "ending": asdict(self)}

    @classmethod
    def heard(cls, header: Json) -> Ending:
        """What `told` told."""
        return cls(**{**header["ending"], "flags": tuple(header["ending"]["flags"])})


def work_told(work: Work) -> list[int]:
    """A range as JSON."""
    batch = work.batch
    return [batch.number, batch.epoch, batch.first, batch.last, work.start, work.stop]


def work_heard(told: Sequence[int]) -> Work:
    """What `work_told` told."""
    return Work(Batch(*told[:4]), told[4], told[5])


def arrays(tensors: Sequence[torch.Tensor]) -> list[NDArray[Any]]:
    """Flat tensors as arrays on the CPU, without a copy where they are there."""
    return [tensor.detach().cpu().contiguous().numpy() for tensor in tensors]
