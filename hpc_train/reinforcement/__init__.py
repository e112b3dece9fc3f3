"""Environments, episodes and replay: where the samples of reinforcement learning come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hpc_train.errors import ConfigError
from hpc_train.reinforcement.environment import Environment
from hpc_train.reinforcement.gridworld import Gridworld
from hpc_train.reinforcement.gymnasium_environment import GymnasiumEnvironment
from hpc_train.reinforcement.replay import Replay
from hpc_train.reinforcement.slots import Row, Slots

__all__ = ["ENVIRONMENTS", "Environment", "Gridworld", "Replay", "Row", "Slots", "make_environment"]

# name -> class; any other name is one of Gymnasium's
ENVIRONMENTS: Mapping[str, Callable[..., Environment]] = {"gridworld": Gridworld}


def make_environment(name: str, arguments: Mapping[str, Any]) -> Environment:
    """The environment called `name`: one of `ENVIRONMENTS`, or of Gymnasium such as CartPole-v1.

    Raises:
        ConfigError: if there is none, or it cannot be made with these arguments.
        SetupError: if it is one of Gymnasium's, which is not installed.
    """
    try:
        if name in ENVIRONMENTS:
            return ENVIRONMENTS[name](**arguments)
        return GymnasiumEnvironment(name, **arguments)
    except TypeError as error:
        raise ConfigError(
            f"environment {name} cannot be made: {error}", where="task.environment"
        ) from error
