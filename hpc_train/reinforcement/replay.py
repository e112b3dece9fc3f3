"""Replay: the last transitions of all episodes, in one order on all ranks.

Lin, "Self-improving reactive agents based on reinforcement learning, planning and teaching",
Machine Learning 8, 1992.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from hpc_train.philox import bits

FIELDS = ("observation", "action", "reward", "next_observation", "next_action", "terminated")
_STREAM = 57


class Replay:
    """A ring of transitions; transition number k lies in place k modulo the capacity.

    Args:
        capacity: how many are kept, >= 1.
        observation_shape: of one observation.

    Attributes:
        count: how many there have been so far.
        arrays: by the names of `FIELDS`, each of shape (capacity, *shape of one).
    """

    def __init__(self, capacity: int, observation_shape: Sequence[int]) -> None:
        self.count = 0
        shape = (capacity, *observation_shape)
        self.arrays: dict[str, NDArray[np.generic]] = {
            "observation": np.zeros(shape, np.float32),
            "action": np.zeros(capacity, np.int64),
            "reward": np.zeros(capacity, np.float64),
            "next_observation": np.zeros(shape, np.float32),
            "next_action": np.zeros(capacity, np.int64),
            "terminated": np.zeros(capacity, np.float32),
        }
        self._capacity = capacity

    def __len__(self) -> int:
        return min(self.count, self._capacity)

    def add(self, transitions: Mapping[str, NDArray[np.generic]]) -> None:
        """Add transitions, one array of shape (n, ...) for each field; the oldest make room."""
        size = len(transitions["action"])
        places = np.arange(self.count, self.count + size) % self._capacity
        for name, array in self.arrays.items():
            array[places] = transitions[name]
        self.count += size

    def drawn(self, seed: int, batch: int, size: int) -> NDArray[np.int64]:
        """Numbers of `size` transitions, each any of those kept: a function of (seed, batch)."""
        words = bits(seed, _STREAM, batch, size).astype(np.int64)
        return self.count - 1 - (words * len(self) >> 32)

    def latest(self, size: int) -> NDArray[np.int64]:
        """Numbers of the last `size` transitions, in their order."""
        return np.arange(self.count - size, self.count)

    def take(self, numbers: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
        """Transitions by their numbers, copied."""
        places = numbers % self._capacity
        return {name: array[places] for name, array in self.arrays.items()}
