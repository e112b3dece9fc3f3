"""The contract of an environment, of which Gymnasium's can be seen as one."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.float32]


class Step(NamedTuple):
    """What an action led to.

    Attributes:
        observation: of the state that follows.
        reward: for the action.
        terminated: whether the episode is over, since that state is a terminal one.
        truncated: whether it is broken off, though it could go on.
    """

    observation: Observation
    reward: float
    terminated: bool
    truncated: bool


class Environment(Protocol):
    """States, actions and rewards.

    An episode is a function of the seed of its reset and of the actions: an open one can be taken
    up anywhere by playing its actions again.
    """

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of an observation."""

    @property
    def num_actions(self) -> int:
        """Actions are 0 .. num_actions - 1."""

    @property
    def max_steps(self) -> int | None:
        """Most actions of an episode; None without a limit."""

    def reset(self, seed: int) -> Observation:
        """Begin an episode; gives its first observation."""

    def step(self, action: int) -> Step:
        """Take an action."""

    def close(self) -> None:
        """Give back what it holds."""
