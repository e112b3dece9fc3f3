"""From arrays of samples to tensors on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.data import Samples, Windows
from hpc_train.tasks import TensorBatch


@dataclass(frozen=True)
class Feed:
    """How fields become tensors.

    Attributes:
        inputs, targets: names of the fields.
        device, dtype: where and in which numbers the model computes.
        scale: factor on inputs; "auto" is 1/255 for uint8; "none" leaves integers integers.
        micro_batch_size: most samples of a part; None for all at once.
        half: the numbers in which the model computes where torch holds it to be safe, bfloat16 or
            float16; None for `dtype` throughout.
        windows: samples are windows, whose first rows are inputs and whose last ones targets.
    """

    inputs: Sequence[str]
    targets: Sequence[str]
    device: torch.device
    dtype: torch.dtype
    scale: float | str
    micro_batch_size: int | None
    half: torch.dtype | None = None
    windows: Windows | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """Around each forward pass: lets it compute in `half`."""
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)

    def parts(
        self, samples: Samples, epoch: int = 0, *, at_least_one: bool = False
    ) -> Iterator[tuple[int, TensorBatch]]:
        """Micro-batches in order, each with the position at which it begins.

        Args:
            samples: what is cut.
            epoch: in which they are used.
            at_least_one: give an empty one if there are no samples.
        """
        if at_least_one and len(samples.ids) == 0:
            yield 0, self.batch(samples, 0, 0, epoch)
        size = self.micro_batch_size or max(1, len(samples.ids))
        for start in range(0, len(samples.ids), size):
            yield start, self.batch(samples, start, start + size, epoch)

    def batch(self, samples: Samples, start: int, stop: int, epoch: int = 0) -> TensorBatch:
        """Samples [start, stop) on the device."""
        arrays, other = samples.arrays, samples.partners
        return TensorBatch(
            {name: self._input(arrays[name][start:stop]) for name in self.inputs},
            {name: self._target(arrays[name][start:stop]) for name in self.targets},
            torch.from_numpy(samples.ids[start:stop]),
            epoch,
            None if other is None else self.batch(other, start, stop, epoch),
        )

    def is_scaled(self, dtype: str) -> bool:
        """Whether inputs stored as `dtype` become floating-point numbers by a factor."""
        return self.scale != "none" and (self.scale != "auto" or dtype == "uint8")

    def _input(self, array: NDArray[np.generic]) -> torch.Tensor:
        if self.windows is not None:
            array = array[:, : self.windows.rows]
        tensor = _tensor(array).to(self.device)
        if not self.is_scaled(array.dtype.name):
            return tensor.to(self.dtype if tensor.is_floating_point() else torch.int64)
        return tensor.to(self.dtype) * (1 / 255 if self.scale == "auto" else float(self.scale))

    def _target(self, array: NDArray[np.generic]) -> torch.Tensor:
        if self.windows is not None:
            array = array[:, self.windows.shift :]
        tensor = _tensor(array).to(self.device)
        return tensor.to(self.dtype if tensor.is_floating_point() else torch.int64)


def _tensor(array: NDArray[np.generic]) -> torch.Tensor:
    """A tensor over the array; unsigned types that torch barely knows become int64."""
    if array.dtype.kind == "u" and array.dtype != np.uint8:
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(array)
