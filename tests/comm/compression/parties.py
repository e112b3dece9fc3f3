"""Parties that compress, as threads of this process."""

import numpy as np
import torch

from hpc_train.comm.compression import Matrix, Terms, find_compressor
from hpc_train.comm.compression.feedback import Feedback
from tests.groups import run_ranks


class ThreadWire:
    """Exchanges among the threads of a group."""

    def __init__(self, group):
        self._group = group
        self.rank, self.size = group.world.rank, group.world.size

    def sum(self, values):
        values[:] = sum(np.array(v, values.dtype) for v in self._group.gather(values.tolist()))

    def gather(self, values):
        return np.array(self._group.gather(values.tolist()), values.dtype)

    def swap(self, values):
        told = self._group.gather(values.tolist())
        return np.array([rows[self.rank] for rows in told], values.dtype)


def feedback(group, name, like, matrices=(), **terms):
    """A compressed sum of `like` on one party."""
    compressor = find_compressor(name)(ThreadWire(group), like, list(matrices), Terms(**terms))
    return Feedback(compressor, like)


def sums(size, name, values, matrices=(), *, commit=True, **terms):
    """Sum in turns; gives each party's (results, residuals), shape (turns, n) each.

    Args:
        size: number of parties.
        values: a function of (party, turn) that gives what is summed.
    """

    def party(group):
        like = torch.empty_like(values(0, 0))
        one = feedback(group, name, like, matrices, **terms)
        found = []
        for turn in range(3):
            like.copy_(values(group.world.rank, turn))
            one.launch()
            if commit:
                one.commit()
            found.append((like.clone(), one.residual.clone()))
        return [torch.stack(list(some)) for some in zip(*found, strict=True)]

    return run_ranks(size, party)


__all__ = ["Matrix", "feedback", "sums"]
