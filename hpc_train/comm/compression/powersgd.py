"""Matrices of low rank: the gradient of each matrix is sent as a product of two thin ones.

    M (rows x columns) of each party: its gradient       r: the rank, Q (columns x r): from before

    1 P = M Q, summed over parties, made orthonormal        rows x r numbers travel
    2 Q = M' P, summed over parties                         columns x r numbers travel
    3 sum = P Q'                                            left for the next time: M - P (M' P)'

One step of the power iteration in each sum: Q, kept from one to the next, turns towards the largest
singular vectors. Vectors (biases) and small matrices travel whole. It depends on the sum of all M
alone, so it does not matter how a batch, or what was left before, is split among parties.
Method: T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical low-rank gradient compression
for distributed optimization", NeurIPS 2019, arXiv 1905.13727.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch

from hpc_train.comm.compression.terms import Matrix, Terms
from hpc_train.comm.compression.wire import Wire

_SEED = 1905_13727


class PowerSGD:
    """The sum of matrices, of low rank."""

    rounds = 2

    def __init__(
        self, wire: Wire, like: torch.Tensor, matrices: Sequence[Matrix], terms: Terms
    ) -> None:
        self._wire = wire
        self._rank = terms.rank
        self._matrices = [m for m in matrices if pays(m, terms.rank)]
        self._whole = between(self._matrices, like.numel())
        self._bases = {m.start: self._first(m, like.dtype) for m in self._matrices}
        self._next: dict[int, torch.Tensor] = {}
        length = sum(place.stop - place.start for place in self._whole)
        length += sum(sum(m.shape) * terms.rank for m in self._matrices)
        self.sent_bytes = 2 * (wire.size - 1) * length * like.element_size() // wire.size

    def sum(self, values: torch.Tensor, left: torch.Tensor) -> None:
        """Replace `values` by a sum of low rank; `left` gets what this party's had beside it."""
        whole = [values[place] for place in self._whole]
        views = [_matrix(values, m) for m in self._matrices]
        rests = [_matrix(left, m) for m in self._matrices]
        left.zero_()
        bases = self._bases.values()
        left_factors = self._add_up(
            [*whole, *(view @ base for view, base in zip(views, bases, strict=True))]
        )
        for place, total in zip(whole, left_factors[: len(whole)], strict=True):
            place.copy_(total)
        if not all(bool(torch.isfinite(factor).all()) for factor in left_factors):
            values.fill_(math.nan)  # the same on all parties, since what they look at is
            return
        ortho = [torch.linalg.qr(factor).Q for factor in left_factors[len(whole) :]]
        mine = [view.T @ p for view, p in zip(views, ortho, strict=True)]
        for rest, view, p, q in zip(rests, views, ortho, mine, strict=True):
            torch.sub(view, p @ q.T, out=rest)
        totals = self._add_up(mine)
        for view, p, q in zip(views, ortho, totals, strict=True):
            torch.mm(p, q.T, out=view)
        self._next = {m.start: q for m, q in zip(self._matrices, totals, strict=True)}

    def commit(self) -> None:
        """Begin the next sum with the factors of this one, but for those of nothing."""
        for start, factor in self._next.items():
            # a column that is zero would be so for ever
            self._bases[start] = torch.where(factor.any(dim=0), factor, self._bases[start])
        self._next = {}

    def tensors(self) -> dict[int, torch.Tensor]:
        """The factors Q, shape (columns, rank), by where their matrices begin."""
        return dict(self._bases)

    def restore(self, tensors: Mapping[int, torch.Tensor]) -> None:
        """Take up factors; those of another rank are of no use."""
        for start, base in self._bases.items():
            if start in tensors and tensors[start].shape == base.shape:
                self._bases[start] = tensors[start].to(base.dtype, copy=True)

    def _add_up(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The sum of each over all parties, by one exchange."""
        if not tensors:
            return []
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._wire.sum(flat.numpy())
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        return [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]

    def _first(self, matrix: Matrix, dtype: torch.dtype) -> torch.Tensor:
        """The first Q, random, the same on all parties and wherever the matrix lies."""
        generator = torch.Generator().manual_seed(_SEED)
        return torch.randn(matrix.shape[1], self._rank, dtype=dtype, generator=generator)


def pays(matrix: Matrix, rank: int) -> bool:
    """Whether two factors are smaller than the matrix: pure."""
    rows, columns = matrix.shape
    return rank <= min(rows, columns) and rank * (rows + columns) < rows * columns


def between(matrices: Sequence[Matrix], size: int) -> list[slice]:
    """The places in [0, size) that no matrix takes: pure."""
    starts = [0, *(m.stop for m in matrices)]
    stops = [*(m.start for m in matrices), size]
    return [slice(a, b) for a, b in zip(starts, stops, strict=True) if a < b]


def _matrix(flat: torch.Tensor, matrix: Matrix) -> torch.Tensor:
    return flat[matrix.start : matrix.stop].view(matrix.shape)
