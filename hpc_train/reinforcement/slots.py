"""Slots: episodes that are played side by side, whatever rank plays them.

    slot     0      1      2            episode number k E + e is the k-th one of slot e of E
    episode  0 ...  1 ...  2 ...        its seed, its random actions are functions of
             3 ...  |      5 ...        (seed, episode, step), so ranks do not matter
                    4 ...

All ranks know what was done in all slots; only the environments of a rank's own slots are alive.
One that is not is brought to life by playing the actions of its open episode again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.philox import derive, key_of, rounds
from hpc_train.reinforcement.environment import Environment, Observation

SEED = 58  # stream of the seeds of environments
_EXPLORE = 59

# greedy actions for observations (n, *shape): int64, shape (n,)
Policy = Callable[[NDArray[np.float32]], NDArray[np.int64]]


@dataclass(frozen=True)
class Row:
    """What a slot did in one round, as all ranks hear of it.

    Attributes:
        observation, action, reward, next_observation, next_action, terminated: the transition.
        ended: whether the episode is over or broken off.
        pending: the action that the slot will take next: `next_action`, or the first one of a new
            episode.
    """

    observation: Observation
    action: int
    reward: float
    next_observation: Observation
    next_action: int
    terminated: bool
    ended: bool
    pending: int

    def pack(self) -> NDArray[np.float64]:
        """All of it as numbers."""
        head = (self.action, self.reward, self.next_action)
        tail = (self.terminated, self.ended, self.pending)
        seen = (self.observation.ravel(), self.next_observation.ravel())
        return np.concatenate((np.array([*head, *tail], np.float64), *seen))


_HEAD = 6


def width(shape: Sequence[int]) -> int:
    """Numbers of a packed row, for the shape of an observation."""
    return _HEAD + 2 * math.prod(shape)


def unpack(
    packed: NDArray[np.float64], shape: Sequence[int]
) -> tuple[dict[str, NDArray[Any]], NDArray[np.bool_], NDArray[np.int64]]:
    """Transitions by field, which slots ended, pending actions, of packed rows (n, width)."""
    action, reward, next_action, terminated, ended, pending = packed[:, :_HEAD].T
    before, after = np.split(packed[:, _HEAD:].astype(np.float32), 2, axis=1)
    transitions: dict[str, NDArray[Any]] = {
        "observation": before.reshape(-1, *shape),
        "action": action.astype(np.int64),
        "reward": reward,
        "next_observation": after.reshape(-1, *shape),
        "next_action": next_action.astype(np.int64),
        "terminated": terminated.astype(np.float32),
    }
    return transitions, ended.astype(bool), pending.astype(np.int64)


class Slots:
    """What was done in all slots, and the environments of this rank's.

    Args:
        make: makes an environment.
        count: number of slots, over all ranks.
        max_steps: most actions of an episode.
        seed: of the run.

    Attributes:
        episode: number of each slot's open episode, shape (count,).
        length: its actions so far, shape (count,).
        total: its rewards so far, shape (count,).
        actions: these actions, and the pending one behind them, shape (count, max_steps + 1).
    """

    def __init__(
        self, make: Callable[[], Environment], count: int, max_steps: int, seed: int
    ) -> None:
        self._make = make
        self._seed = seed
        self._key = key_of(derive(seed, _EXPLORE))
        self._limit = max_steps
        self._living: dict[int, tuple[Environment, Observation]] = {}
        self.episode = np.arange(count)
        self.length = np.zeros(count, np.int64)
        self.total = np.zeros(count)
        self.actions = np.full((count, max_steps + 1), -1, np.int64)

    def __len__(self) -> int:
        return len(self.episode)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of an observation."""
        environment = next((alive for alive, _ in self._living.values()), None) or self._make()
        return environment.observation_shape

    def play(self, mine: Sequence[int], policy: Policy, epsilon: float) -> list[Row]:
        """Let each of the slots `mine` take its pending action, and choose the next one.

        Args:
            mine: the slots of this rank, ascending.
            policy: gives greedy actions.
            epsilon: probability of a random one in place of it.
        """
        if not mine:
            return []
        before = np.stack([self._alive(slot)[1] for slot in mine])
        new = [slot for slot in mine if self.actions[slot, self.length[slot]] < 0]
        if new:
            greedy = policy(before[[mine.index(slot) for slot in new]])
            for slot, action in zip(new, greedy, strict=True):
                self.actions[slot, 0] = self._choose(self.episode[slot], 0, action, epsilon)
        taken = [int(self.actions[slot, self.length[slot]]) for slot in mine]
        steps = [self._living[s][0].step(a) for s, a in zip(mine, taken, strict=True)]
        after = np.stack([step.observation for step in steps])
        ended = [
            step.terminated or step.truncated or self.length[slot] + 1 >= self._limit
            for slot, step in zip(mine, steps, strict=True)
        ]
        begun = {s: self._begin(s, len(self)) for s, end in zip(mine, ended, strict=True) if end}
        greedy = policy(np.concatenate((after, np.stack(list(begun.values())))) if begun else after)
        first = dict(zip(begun, greedy[len(mine) :], strict=True))
        rows = []
        for place, (slot, step) in enumerate(zip(mine, steps, strict=True)):
            number, length = self.episode[slot], self.length[slot] + 1
            following = self._choose(number, length, greedy[place], epsilon)
            pending = following
            if ended[place]:
                pending = self._choose(number + len(self), 0, first[slot], epsilon)
            seen = begun.get(slot, step.observation)
            self._living[slot] = self._living[slot][0], seen
            rows.append(
                Row(
                    before[place],
                    taken[place],
                    step.reward,
                    step.observation,
                    following,
                    step.terminated,
                    ended[place],
                    pending,
                )
            )
        return rows

    def hear(
        self,
        rewards: NDArray[np.float64],
        actions: NDArray[np.int64],
        ended: NDArray[np.bool_],
        pending: NDArray[np.int64],
    ) -> list[tuple[float, int]]:
        """Note what all slots did; gives return and length of each episode that ended."""
        every = np.arange(len(self))
        self.actions[every, self.length] = actions
        self.total += rewards
        self.length += 1
        done = [(float(self.total[s]), int(self.length[s])) for s in np.flatnonzero(ended)]
        self.episode[ended] += len(self)
        self.length[ended] = 0
        self.total[ended] = 0
        self.actions[every, self.length] = pending
        return done

    def restore(self, tensors: dict[str, Any]) -> None:
        """Take up what was done; environments come to life when they are needed."""
        for name in ("episode", "length", "total", "actions"):
            getattr(self, name)[...] = tensors[name]
        self.close()

    def close(self) -> None:
        """Close all environments."""
        for environment, _ in self._living.values():
            environment.close()
        self._living.clear()

    def seed_of(self, episode: int) -> int:
        """The seed of an episode's environment, in [0, 2^31)."""
        return derive(self._seed, SEED, episode) & 0x7FFFFFFF

    def _alive(self, slot: int) -> tuple[Environment, Observation]:
        """The environment of a slot, and what it shows."""
        if slot not in self._living:
            environment = self._make()
            seen = environment.reset(self.seed_of(int(self.episode[slot])))
            for action in self.actions[slot, : self.length[slot]]:
                seen = environment.step(int(action)).observation
            self._living[slot] = environment, seen
        return self._living[slot]

    def _begin(self, slot: int, further: int) -> Observation:
        """Begin the next episode of a slot."""
        return self._living[slot][0].reset(self.seed_of(int(self.episode[slot]) + further))

    def _choose(self, episode: int, step: int, greedy: int, epsilon: float) -> int:
        """The greedy action, or a random one with probability `epsilon`."""
        words = rounds((int(episode) & 0xFFFFFFFF, int(episode) >> 32, int(step), 0), self._key)
        if words[0] / 2**32 >= epsilon:
            return int(greedy)
        return words[1] * self._num_actions >> 32

    @property
    def _num_actions(self) -> int:
        return next(alive for alive, _ in self._living.values()).num_actions
