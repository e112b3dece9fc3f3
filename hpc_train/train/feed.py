"""From arrays of samples to tensors on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from hpc_train.data import Dataset, Samples, Windows
from hpc_train.tasks import TensorBatch
from hpc_train.train.survey import is_scaled
from hpc_train.train.upload import is_tensor_type

Stored = NDArray[Any] | torch.Tensor


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
        normal: factor and shift of inputs by name, broadcasting over samples: those become
            x * factor + shift, in place of `scale`.
    """

    inputs: Sequence[str]
    targets: Sequence[str]
    device: torch.device
    dtype: torch.dtype
    scale: float | str
    micro_batch_size: int | None
    half: torch.dtype | None = None
    windows: Windows | None = None
    normal: Mapping[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def autocast(self) -> AbstractContextManager[object]:
        """Around each forward pass: lets it compute in `half`."""
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)

    def parts(
        self,
        samples: Samples,
        epoch: int = 0,
        piece: tuple[int, int] | None = None,
        *,
        at_least_one: bool = False,
    ) -> Iterator[tuple[int, TensorBatch]]:
        """Micro-batches in order, each with the position at which it begins.

        Args:
            samples: what is cut.
            epoch: in which they are used.
            piece: where what is wanted of them begins and ends; None for all.
            at_least_one: give an empty one if there are no samples.
        """
        first, stop = piece or (0, len(samples.ids))
        if at_least_one and first == stop:
            yield first, self.batch(samples, first, first, epoch)
        size = self.micro_batch_size or max(1, stop - first)
        for start in range(first, stop, size):
            yield start, self.batch(samples, start, min(start + size, stop), epoch)

    def batch(self, samples: Samples, start: int, stop: int, epoch: int = 0) -> TensorBatch:
        """Samples [start, stop) on the device."""
        arrays: Mapping[str, Any] = samples.arrays
        if samples.delivered is not None:
            samples.delivered.use()
            arrays = {**arrays, **samples.delivered.parts}
        other = samples.partners
        return TensorBatch(
            {name: self._input(name, arrays[name][start:stop]) for name in self.inputs},
            {name: self._target(arrays[name][start:stop]) for name in self.targets},
            torch.from_numpy(samples.ids[start:stop]),
            epoch,
            None if other is None else self.batch(other, start, stop, epoch),
        )

    def is_number(self, name: str, dtype: str) -> bool:
        """Whether an input stored as `dtype` becomes floating-point numbers."""
        return dtype.startswith("float") or name in self.normal or is_scaled(self.scale, dtype)

    def _input(self, name: str, array: Stored) -> torch.Tensor:
        if self.windows is not None:
            array = array[:, : self.windows.rows]
        tensor = _tensor(array)
        dtype = str(tensor.dtype if isinstance(array, torch.Tensor) else array.dtype)
        tensor = tensor.to(self.device)
        if name in self.normal:
            factor, shift = self.normal[name]
            return torch.addcmul(shift, tensor.to(self.dtype), factor)
        if not is_scaled(self.scale, dtype.removeprefix("torch.")):
            return tensor.to(self.dtype if tensor.is_floating_point() else torch.int64)
        return tensor.to(self.dtype) * (1 / 255 if self.scale == "auto" else float(self.scale))

    def _target(self, array: Stored) -> torch.Tensor:
        if self.windows is not None:
            array = array[:, self.windows.shift :]
        tensor = _tensor(array).to(self.device)
        return tensor.to(self.dtype if tensor.is_floating_point() else torch.int64)


def normal_of(
    dataset: Dataset, names: Sequence[str], device: torch.device, dtype: torch.dtype
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Factor and shift with which inputs have mean 0 and standard deviation 1 in each channel.

    A channel that never varies becomes 0.

    Args:
        dataset: whose fields `names` have statistics.
        names: of inputs.
        device, dtype: of the tensors, of shape (channels, 1, ...) or ().
    """
    found = {}
    for name in names:
        info = dataset.index.fields[name]
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (info.mean, info.std))
        factor = torch.where(std > 0, 1 / std, 1.0)
        shape = (len(mean), *[1] * (len(info.shape) - 1)) if len(info.shape) not in (0, 2) else ()
        parts = (part.reshape(shape).to(device, dtype) for part in (factor, -mean * factor))
        found[name] = next(parts), next(parts)
    return found


def _tensor(array: Stored) -> torch.Tensor:
    """A tensor over the array; unsigned types that torch barely knows become int64."""
    if isinstance(array, torch.Tensor):
        return array
    if not is_tensor_type(array.dtype):
        return torch.from_numpy(array.astype("int64"))
    return torch.from_numpy(array)
