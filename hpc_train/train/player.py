"""Playing while learning: the ranks act in parallel, and all learn from everything.

    after an update, each `every`-th time, `rounds` times:

    1 act        each rank lets its slots take a step in their environments
    2 exchange   one sum over all ranks: everybody has all transitions, in the order of slots
    3 keep       everybody adds them to its replay, which is the same on all ranks

    a batch      transitions of the replay, drawn by (seed, batch number), cut like any other batch

So 1, 2 or 3 ranks learn the same. The replay, and what was done in open episodes, is in the
checkpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.data import Dataset, Samples
from hpc_train.data.digest import digest_of, sample_hashes
from hpc_train.data.loader import wanted
from hpc_train.errors import ConfigError
from hpc_train.philox import derive
from hpc_train.plan import Batch, Work
from hpc_train.record import phase
from hpc_train.reinforcement import Environment, Replay, Row, Slots
from hpc_train.reinforcement.slots import unpack, width
from hpc_train.strategies import Learner
from hpc_train.tasks.reinforcement import Reinforcement, greedy
from hpc_train.train.feed import Feed
from hpc_train.train.technique import Technique
from hpc_train.world import together

_RECENT = 100  # episodes over which training's return is averaged
_DRAW = 60  # stream of the seed by which batches are drawn


class Player(Technique):
    """Plays all slots, over all ranks, and keeps the replay.

    Args:
        config: of the run.
        comm: the ranks.
        task, model, feed: what learns, and how it sees.
        make: makes an environment.
    """

    name = "player"

    def __init__(
        self,
        config: Config,
        comm: Comm,
        task: Reinforcement,
        model: nn.Module,
        feed: Feed,
        make: Callable[[], Environment],
    ) -> None:
        self._comm = comm
        self._task = task
        self._model = model
        self._feed = feed
        self._seed = derive(config.run.seed, _DRAW)
        self._batch_size = config.data.batch_size
        self._start = task.start or self._batch_size
        self._is_on_policy = task.replay == 0
        self._check(task)
        environment = make()
        limit = task.max_steps or environment.max_steps
        shape = environment.observation_shape
        environment.close()
        if limit is None:
            raise ConfigError(
                "task.max_steps must be set: the environment has no limit", where="task.max_steps"
            )
        self._make = partial(Slots, make, task.slots, limit, config.run.seed)
        self._slots = self._make()
        self.replay = Replay(task.replay or self._batch_size, shape)
        self._updates = 0
        self._filled = 0  # by how many ranks the replay was filled at first; 0: it is not
        self._episodes = 0
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)
        if task.target_every:
            task.target = {n: p.detach().clone() for n, p in model.state_dict().items()}

    def _check(self, task: Reinforcement) -> None:
        played = task.slots * task.rounds
        if self._is_on_policy and played != self._batch_size:
            raise ConfigError(
                f"without a replay a batch is what was just played: data.batch_size must be "
                f"task.slots times task.rounds ({self._batch_size}, {task.slots}, {task.rounds})",
                where="data.batch_size",
                hint=f"set data.batch_size={played}, or task.replay=10000",
            )
        if not self._is_on_policy and task.replay < max(self._start, self._batch_size):
            raise ConfigError(
                f"task.replay must hold a batch, and what is played before the first one "
                f"(replay: {task.replay}, start: {self._start}, batch: {self._batch_size})",
                where="task.replay",
            )

    def begin(self, batch: Batch) -> None:
        """Before the first batch: play what it is drawn from.

        Once more if a rank was lost meanwhile: who is left may have heard of different rounds.
        """
        size = self._comm.world.size
        if self._updates or self._filled == size:
            return
        self._slots.close()
        self._slots, self.replay.count = self._make(), 0
        self._episodes = 0
        self._recent.clear()
        while self.replay.count < self._start:
            self._round()
        self._filled = size

    def updated(self, learner: Learner) -> None:
        """Act, and bring the copy of the network up to date, when it is time."""
        self._updates += 1
        task = self._task
        if task.target is not None and self._updates % task.target_every == 0:
            with torch.no_grad():
                for name, value in self._model.state_dict().items():
                    task.target[name].copy_(value)
        if self._updates % task.every_updates == 0:
            for _ in range(task.rounds):
                self._round()

    def numbers(self, batch: Batch) -> NDArray[np.int64]:
        """The transitions of a global batch."""
        if self._is_on_policy:
            return self.replay.latest(batch.size)
        return self.replay.drawn(self._seed, batch.number, batch.size)

    def report(self) -> dict[str, float | int]:
        """Return and length of the last training episodes, and how much was played."""
        found: dict[str, float | int] = {}
        if self._recent:
            found["return"], found["length"] = np.mean(self._recent, axis=0).tolist()
        return {
            **found,
            "epsilon": self._task.epsilon(self.replay.count),
            "episodes": self._episodes,
            "environment_steps": self.replay.count,
        }

    def act(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """The greedy actions for observations (n, *shape)."""
        was_training = self._model.training
        self._model.eval()
        try:
            with torch.no_grad():
                seen = torch.from_numpy(observations).to(self._feed.device, self._feed.dtype)
                actions: NDArray[np.int64] = greedy(self._model(seen)).cpu().numpy()
                return actions
        finally:
            self._model.train(was_training)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The replay, what was done in open episodes, and the copy of the network."""
        slots = {name: getattr(self._slots, name) for name in _SLOTS}
        arrays = {**{f"replay/{n}": a for n, a in self.replay.arrays.items()}, **slots}
        found = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return found | {f"target/{n}": t for n, t in (self._task.target or {}).items()}

    def notes(self) -> dict[str, Any]:
        """Counts, and the returns of the last episodes."""
        return {
            "count": self.replay.count,
            "updates": self._updates,
            "filled": self._filled,
            "episodes": self._episodes,
            "recent": list(self._recent),
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take them up; open episodes are played again, up to where they were."""
        if not notes:
            return
        for name, array in self.replay.arrays.items():
            array[...] = tensors[f"replay/{name}"].numpy()
        self._slots.restore({name: tensors[name].numpy() for name in _SLOTS})
        for name, value in (self._task.target or {}).items():
            value.copy_(tensors[f"target/{name}"])
        self.replay.count, self._updates = notes["count"], notes["updates"]
        self._filled, self._episodes = notes["filled"], notes["episodes"]
        self._recent.clear()
        self._recent.extend((float(total), int(length)) for total, length in notes["recent"])

    def close(self) -> None:
        """Close all environments."""
        self._slots.close()

    def _round(self) -> None:
        """Let all slots act once, on all ranks together."""
        world, slots = self._comm.world, self._slots
        epsilon = self._task.epsilon(self.replay.count)
        first, last = (len(slots) * r // world.size for r in (world.rank, world.rank + 1))

        def act() -> list[Row]:
            with phase("play"):
                return slots.play(range(first, last), self.act, epsilon)

        rows = together(self._comm, act)
        shape = self.replay.arrays["observation"].shape[1:]
        packed = np.zeros((len(slots), width(shape)))
        for slot, row in zip(range(first, last), rows, strict=True):
            packed[slot] = row.pack()
        with phase("communication", operation="play"):
            whole = self._comm.sum(packed.reshape(-1)).reshape(packed.shape)
        transitions, ended, pending = unpack(whole, shape)
        done = slots.hear(transitions["reward"], transitions["action"], ended, pending)
        self._episodes += len(done)
        self._recent.extend(done)
        self.replay.add(transitions)


_SLOTS = ("episode", "length", "total", "actions")


class Replayed:
    """Batches of transitions from the replay; a `Source`."""

    def __init__(self, player: Player, dataset: Dataset) -> None:
        self._player = player
        self.dataset = dataset

    def follow(self, works: Iterator[Work]) -> None:
        """Nothing can be got ready: it is not played yet."""

    def get(self, work: Work) -> Samples:
        """This rank's part of a batch."""
        with phase("data", batch=work.batch.number):
            numbers = wanted(self._player.numbers(work.batch), work)
            arrays = self._player.replay.take(numbers)
            hashes = sample_hashes(numbers, arrays)
            return Samples(numbers, arrays, digest_of(hashes), hashes=hashes)

    def close(self) -> None:
        """Close the environments."""
        self._player.close()
