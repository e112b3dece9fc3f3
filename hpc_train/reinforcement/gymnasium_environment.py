"""Environments of Gymnasium with numbered actions; the only home of gymnasium."""

from __future__ import annotations

from typing import Any

import numpy as np

from hpc_train.errors import ConfigError, SetupError
from hpc_train.reinforcement.environment import Observation, Step


class GymnasiumEnvironment:
    """An environment by its name in Gymnasium's registry; numbered states become one-hot.

    Args:
        name: such as CartPole-v1.
        arguments: of `gymnasium.make`.

    Raises:
        SetupError: if Gymnasium is not installed.
        ConfigError: if there is no such environment, or its actions are not numbered.
    """

    def __init__(self, name: str, **arguments: Any) -> None:
        try:
            import gymnasium
        except ImportError as error:
            raise SetupError(
                f"environment {name} needs gymnasium, which is not installed",
                hint="pip install hpc-train[rl]",
            ) from error
        try:
            self._inner: Any = gymnasium.make(name, **arguments)
        except gymnasium.error.Error as error:
            raise ConfigError(
                f"no environment {name}: {str(error).splitlines()[0]}",
                where="data.train",
                hint="use gridworld, or a name that `gymnasium.pprint_registry()` lists",
            ) from error
        actions, observations = self._inner.action_space, self._inner.observation_space
        discrete = gymnasium.spaces.Discrete
        if not isinstance(actions, discrete):
            raise ConfigError(
                f"an environment must have numbered actions ({name}: {actions})", where="data.train"
            )
        self._first_action = int(actions.start)
        self._num_actions = int(actions.n)
        self._states = int(observations.n) if isinstance(observations, discrete) else None
        if self._states is None and not isinstance(observations, gymnasium.spaces.Box):
            raise ConfigError(
                f"an environment must have numbered states, or observations of one shape "
                f"({name}: {observations})",
                where="data.train",
            )
        shape: Any = observations.shape
        self._shape = tuple(shape) if self._states is None else (self._states,)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of an observation."""
        return self._shape

    @property
    def num_actions(self) -> int:
        """Number of actions."""
        return self._num_actions

    @property
    def max_steps(self) -> int | None:
        """Most actions of an episode."""
        spec = self._inner.spec
        return None if spec is None else spec.max_episode_steps

    def reset(self, seed: int) -> Observation:
        """Begin an episode."""
        return self._seen(self._inner.reset(seed=seed)[0])

    def step(self, action: int) -> Step:
        """Take an action."""
        seen, reward, terminated, truncated, _ = self._inner.step(self._first_action + action)
        return Step(self._seen(seen), float(reward), bool(terminated), bool(truncated))

    def close(self) -> None:
        """Close its windows, if it has some."""
        self._inner.close()

    def _seen(self, observation: Any) -> Observation:
        if self._states is None:
            return np.asarray(observation, np.float32)
        hot = np.zeros(self._states, np.float32)
        hot[int(observation)] = 1
        return hot
