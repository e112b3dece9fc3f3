"""A small world whose optimal policy is known: a walk over a grid to a goal, around pits.

    . . . G     G  goal, reward +1, ends the episode
    . # . P     P  pit, reward -1, ends it, too          each step costs `cost`
    . . . .     #  wall: a step against it, or out of the grid, stays where it is

Russell and Norvig, "Artificial Intelligence: A Modern Approach", section 17.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import ConfigError
from hpc_train.philox import key_of, rounds
from hpc_train.reinforcement.environment import Observation, Step

ROWS = ("...G", ".#.P", "....")
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left
_ENDS = {"G": 1.0, "P": -1.0}
_STREAM = 56


class Gridworld:
    """Episodes begin at any free place. Observations are one-hot, shape (rows * columns,).

    Args:
        rows: the map: `.` free, `#` wall, `G` goal, `P` pit; rows of one length.
        slip: probability that a step goes to the left or to the right of where it should, each
            with half of it, in [0, 1].
        cost: of each step, >= 0.
        max_steps: an episode is broken off after so many, >= 1.
    """

    def __init__(
        self,
        rows: Sequence[str] = ROWS,
        slip: float = 0.0,
        cost: float = 0.04,
        max_steps: int = 100,
    ) -> None:
        self._rows = _checked(rows)
        if not 0 <= slip <= 1 or cost < 0 or max_steps < 1:
            raise ConfigError(
                "gridworld needs slip in [0, 1], cost >= 0 and max_steps >= 1 "
                f"(slip: {slip}, cost: {cost}, max_steps: {max_steps})",
                where="task.environment",
            )
        self._slip = slip
        self._cost = cost
        self._limit = max_steps
        self._width = len(rows[0])
        self.free = [place for place, sign in enumerate("".join(rows)) if sign == "."]
        self._key = (0, 0)
        self._place = self.free[0]
        self._count = 0

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """One number for each place."""
        return (len(self._rows) * self._width,)

    @property
    def num_actions(self) -> int:
        """Up, right, down, left."""
        return len(MOVES)

    @property
    def max_steps(self) -> int | None:
        """Most actions of an episode."""
        return self._limit

    def reset(self, seed: int) -> Observation:
        """Begin an episode at a free place that the seed chooses."""
        self._key, self._count = key_of(seed), 0
        self._place = self.free[self._words(0)[0] * len(self.free) >> 32]
        return self._observation()

    def step(self, action: int) -> Step:
        """Take a step."""
        self._count += 1
        slips = self._words(self._count)[0] / 2**32
        turn = 0 if slips >= self._slip else (1 if slips < self._slip / 2 else -1)
        self._place = self._after(self._place, (action + turn) % 4)
        end = _ENDS.get(self._sign(self._place))
        reward = (end or 0.0) - self._cost
        truncated = end is None and self._count >= self._limit
        return Step(self._observation(), reward, end is not None, truncated)

    def close(self) -> None:
        """Nothing is held."""

    def dynamics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Probabilities (states, actions, next states) and mean rewards (states, actions).

        Terminal states lead to themselves without reward.
        """
        states = self.observation_shape[0]
        chances = np.zeros((states, 4, states))
        rewards = np.zeros((states, 4))
        for place in range(states):
            for action in range(4):
                if place not in self.free:
                    chances[place, action, place] = 1
                    continue
                for turn, chance in (
                    (0, 1 - self._slip),
                    (1, self._slip / 2),
                    (-1, self._slip / 2),
                ):
                    after = self._after(place, (action + turn) % 4)
                    chances[place, action, after] += chance
                    gain = _ENDS.get(self._sign(after), 0.0) - self._cost
                    rewards[place, action] += chance * gain
        return chances, rewards

    def _words(self, count: int) -> tuple[int, int, int, int]:
        return rounds((count, 0, 0, _STREAM), self._key)

    def _sign(self, place: int) -> str:
        return self._rows[place // self._width][place % self._width]

    def _after(self, place: int, move: int) -> int:
        row, column = place // self._width + MOVES[move][0], place % self._width + MOVES[move][1]
        inside = 0 <= row < len(self._rows) and 0 <= column < self._width
        after = row * self._width + column
        return after if inside and self._sign(after) != "#" else place

    def _observation(self) -> Observation:
        observation = np.zeros(self.observation_shape, np.float32)
        observation[self._place] = 1
        return observation


def value_iteration(
    chances: NDArray[np.float64], rewards: NDArray[np.float64], discount: float
) -> NDArray[np.float64]:
    """The optimal action values by dynamic programming, shape (states, actions).

    Bellman, "Dynamic Programming", 1957. Iterates until nothing changes by more than 1e-12.

    Args:
        chances, rewards: as `Gridworld.dynamics` gives them.
        discount: factor on what the next state is worth, in [0, 1]; at 1 every policy must end.
    """
    values = np.zeros_like(rewards)
    for _ in range(100_000):
        after = rewards + discount * chances @ values.max(1)
        change = np.abs(after - values).max()
        values = after
        if change <= 1e-12:
            break
    return values


def _checked(rows: Sequence[str]) -> tuple[str, ...]:
    text = "".join(rows)
    if (
        not text
        or any(len(row) != len(rows[0]) for row in rows)
        or set(text) - set(".#GP")
        or not {".", "G"} <= set(text)
    ):
        raise ConfigError(
            "a map must have rows of one length of the signs . # G P, with a free place and a goal "
            f"(rows: {list(rows)})",
            where="task.environment",
        )
    return tuple(rows)
