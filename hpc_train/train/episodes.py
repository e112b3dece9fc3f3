"""Evaluation by playing: episodes without randomness in the actions, by their numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpc_train.data import Dataset, Samples
from hpc_train.data.digest import delivered_hash
from hpc_train.philox import derive
from hpc_train.plan import Work
from hpc_train.record import phase
from hpc_train.reinforcement import Environment
from hpc_train.tasks import Losses, TensorBatch
from hpc_train.tasks.reinforcement import greedy
from hpc_train.train.feed import Feed

_STREAM = 61  # of the seeds of evaluated episodes, other than those of training


class Episodes:
    """A source of numbers of episodes; their fields are zeros, since they are yet to be played."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def follow(self, works: Iterator[Work]) -> None:
        """Nothing has to be got ready."""

    def get(self, work: Work) -> Samples:
        """The numbers of some episodes."""
        first = self.dataset.start + work.batch.first
        ids = np.arange(first + work.start, first + work.stop)
        arrays: dict[str, NDArray[np.generic]] = {
            name: np.zeros((len(ids), *info.shape), info.dtype)
            for name, info in self.dataset.fields.items()
        }
        return Samples(ids, arrays, delivered_hash(ids, arrays))

    def close(self) -> None:
        """Nothing is held."""


class Playing:
    """The phase of an evaluation: a loss is minus the return of an episode.

    Args:
        make: makes an environment.
        seed: of the run.
        limit: most actions of an episode; None as the environment has it.
        feed: how observations become tensors.
    """

    name = "playing"

    def __init__(
        self, make: Callable[[], Environment], seed: int, limit: int | None, feed: Feed
    ) -> None:
        self._make = make
        self._seed = seed
        self._limit = limit
        self._feed = feed

    def parameters(self, model: nn.Module) -> list[tuple[str, nn.Parameter]]:
        """None: nothing is trained."""
        return []

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """Play the episodes of a batch side by side."""
        with phase("play"):
            totals, lengths, first = self._play(model, batch.ids.tolist())
        returns = torch.tensor(totals, dtype=torch.float64)
        steps = torch.tensor(lengths, dtype=torch.float64)
        sums = {"return": returns.sum(), "length": steps.sum(), "value": first.double().sum()}
        return Losses(-returns, sums=sums)

    def _play(
        self, model: nn.Module, ids: list[int]
    ) -> tuple[list[float], list[int], torch.Tensor]:
        """Returns, lengths, and what the model thought of the first observations."""
        worlds = [self._make() for _ in ids]
        seen = [w.reset(self._seed_of(number)) for w, number in zip(worlds, ids, strict=True)]
        totals, lengths = [0.0] * len(ids), [0] * len(ids)
        first = self._values(model, seen).max(1).values
        open_ones = list(range(len(ids)))
        while open_ones:
            actions = greedy(self._values(model, [seen[i] for i in open_ones])).tolist()
            for place, action in zip(list(open_ones), actions, strict=True):
                step = worlds[place].step(action)
                seen[place] = step.observation
                totals[place] += step.reward
                lengths[place] += 1
                if step.terminated or step.truncated or lengths[place] == self._limit:
                    open_ones.remove(place)
        for world in worlds:
            world.close()
        return totals, lengths, first

    def _values(self, model: nn.Module, seen: list[NDArray[np.float32]]) -> torch.Tensor:
        values: torch.Tensor = model(
            torch.from_numpy(np.stack(seen)).to(self._feed.device, self._feed.dtype)
        )
        return values

    def _seed_of(self, number: int) -> int:
        return derive(self._seed, _STREAM, number) & 0x7FFFFFFF
