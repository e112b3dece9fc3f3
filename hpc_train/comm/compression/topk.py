"""The largest elements alone: each party sends its k largest values with their places.

    party 0   values  .1 -9  .2  3  .1  4      sends (1: -9) (5: 4)       left  .1  .  .2  3  .1  .
    party 1   values   5 .1  .1 .2  .3  6      sends (0:  5) (5: 6)       left   . .1  .1 .2  .3  .
    sum                5 -9   .  .   . 10      on both

What is not sent is added to the values of the next time, until it is large enough to be. Method:
Y. Lin, S. Han, H. Mao, Y. Wang, W. J. Dally, "Deep gradient compression", ICLR 2018 (without its
corrections for momentum, which here comes after the sum); that nothing gets lost on the way: S. P.
Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error feedback fixes SignSGD and other gradient
compression schemes", ICML 2019, arXiv 1901.09847.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from hpc_train.comm.compression.terms import Matrix, Stateless, Terms
from hpc_train.comm.compression.wire import Wire
from hpc_train.errors import UsageError

_SAMPLED = 4096  # so many elements are looked at to guess where the largest ones begin
_ROOM = 1.3  # times as many are then looked at closely


class TopK(Stateless):
    """The sum of the largest elements of each party."""

    rounds = 1

    def __init__(
        self, wire: Wire, like: torch.Tensor, matrices: Sequence[Matrix], terms: Terms
    ) -> None:
        self._wire = wire
        size = like.numel()
        self._count = min(size, max(1, math.ceil(terms.density * size)))
        # places travel as whole numbers as long as the values, in one message with them
        self._kind = torch.int32 if like.element_size() == 4 else torch.int64
        if size > torch.iinfo(self._kind).max:
            raise UsageError(
                f"topk counts at most 2^31 - 1 elements of float32 (elements: {size})",
                where="comm.gradient_compression",
                hint="powersgd and bf16 have no such limit",
            )
        self.sent_bytes = (wire.size - 1) * 2 * self._count * like.element_size()

    def sum(self, values: torch.Tensor, left: torch.Tensor) -> None:
        """Replace `values` by the sum of the largest of each party; `left` gets the others."""
        places = largest(values, self._count)
        sent = values[places]
        left.copy_(values)
        left[places] = 0
        message = torch.cat([places.to(self._kind).view(values.dtype), sent])
        values.zero_()
        for row in torch.from_numpy(self._wire.gather(message.numpy())):
            at = row[: self._count].view(self._kind)
            values.index_add_(0, at, row[self._count :])


def largest(values: torch.Tensor, count: int) -> torch.Tensor:
    """The places of the `count` elements of largest size, in no order; those that are NaN first.

    A sample tells where they are likely to begin, so that few of many elements are sorted.

    Args:
        values: shape (n,).
        count: in [0, n].
    """
    sizes = values.abs()
    step = values.numel() // _SAMPLED
    if step < 2:
        return torch.topk(sizes, count, sorted=False).indices
    sample = sizes[::step]
    above = math.ceil(_ROOM * count / values.numel() * sample.numel()) + 8
    if above >= sample.numel():
        return torch.topk(sizes, count, sorted=False).indices
    border = torch.topk(sample, above, sorted=False).values.min()
    # "not below" takes those that are NaN along
    found = torch.from_numpy(np.flatnonzero(~(sizes < border).numpy()))
    if found.numel() < count:
        return torch.topk(sizes, count, sorted=False).indices
    return found[torch.topk(sizes[found], count, sorted=False).indices]
