"""What the loop takes samples from: a data set that is read, or a replay that is played."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from hpc_train.data import Dataset, Samples
from hpc_train.plan import Work


class Source(Protocol):
    """Gives the samples of work; `data.Loader` is one, a task may bring its own.

    Which samples belong to a global batch is the same for any number of ranks.
    """

    @property
    def dataset(self) -> Dataset:
        """Fields of a sample, and samples of an epoch."""

    def follow(self, works: Iterator[Work]) -> None:
        """Hear what will be wanted, to get it ready; what is wanted may differ."""

    def get(self, work: Work) -> Samples:
        """The samples of `work`, valid until the next call. Not collective."""

    def close(self) -> None:
        """Give back what it holds."""
