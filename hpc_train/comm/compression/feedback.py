"""Error feedback: what a compressed sum leaves out is added to what is summed the next time.

    step     values       + residual -> compressed sum        new residual
     1       g1           0             sent part of g1       r1 = g1 - sent
     2       g2           r1            sent part of g2+r1    r2 = g2 + r1 - sent

The new residual takes its place only when the step counts: one that is skipped or repeated begins
with the old one. Method: S. P. Karimireddy, Q. Rebjock, S. U. Stich, M. Jaggi, "Error feedback
fixes SignSGD and other gradient compression schemes", ICML 2019, arXiv 1901.09847.

Gradients are sums over the samples of a batch, whose number may differ from step to step: residuals
are scaled to that of the step that takes them up.
"""

from __future__ import annotations

import torch

from hpc_train.comm.compression.terms import Compressor


class Feedback:
    """A compressed sum that remembers what it left out.

    Args:
        compressor: sums.
        values: what is summed, in place, shape (n,) on the CPU.

    Attributes:
        compressor: the same.
        residual: what this party owes to the sum, shape (n,), for a batch of `size` samples.
        size: see there.
    """

    def __init__(self, compressor: Compressor, values: torch.Tensor) -> None:
        self.compressor = compressor
        self._values = values
        self.residual = torch.zeros_like(values)
        self._left = torch.zeros_like(values)
        self.size = 1
        self.batch_size = 1
        self._done = False

    def launch(self) -> None:
        """Sum, with what was left before, for a batch of `batch_size` samples."""
        self._values.add_(self.residual, alpha=self.batch_size / self.size)
        self.compressor.sum(self._values, self._left)
        self._done = True

    def commit(self) -> None:
        """The sum counts: what it left out is the residual from here on."""
        if self._done:
            self.residual, self._left = self._left, self.residual
            self.size = self.batch_size
            self.compressor.commit()
            self._done = False

    def take(self, residual: torch.Tensor | None) -> None:
        """Owe this much for a batch of one sample, shape (n,); None for nothing."""
        self.size = 1
        self._done = False
        if residual is None:
            self.residual.zero_()
        else:
            self.residual.copy_(residual)
