"""Environments in the place of data sets: `environment:NAME`, and `environment:NAME[a:b]`.

For training, samples are transitions, and an epoch is `EPOCH_BATCHES` batches of them. For
evaluation, samples are episodes: those of the numbers a .. b-1, by default `EPISODES`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from hpc_train.config import Config
from hpc_train.data import Dataset
from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.errors import ConfigError
from hpc_train.reinforcement import Environment, make_environment
from hpc_train.reinforcement.replay import FIELDS

EPOCH_BATCHES = 1000
EPISODES = 20
OBSERVATION = FIELDS[0]
_NAME = re.compile(r"^environment:(?P<name>.+?)(\[(?P<start>\d*):(?P<stop>\d+)\])?$")


def is_played(config: Config) -> bool:
    """Whether training data come from an environment."""
    return config.data.train.startswith("environment:")


def resolve_fields(config: Config) -> Config:
    """The configuration with the fields of transitions; as it is where nothing is played.

    Raises:
        ConfigError: if the task does not fit.
    """
    is_learned = config.task.name == "reinforcement"
    if is_learned != is_played(config) and ":" not in config.task.name:
        raise ConfigError(
            "environments and the task reinforcement need each other "
            f'(data.train: "{config.data.train}", task.name: "{config.task.name}")',
            where="data.train" if is_learned else "task.name",
            hint='data.train is such as "environment:CartPole-v1"',
        )
    if not is_played(config):
        return config
    if config.data.sampling != "uniform" or config.data.samples_per_epoch is not None:
        raise ConfigError(
            "what is played cannot be sampled: sampling must be uniform, and samples_per_epoch "
            "left out",
            where="data.sampling",
        )
    if config.data.normalize:
        raise ConfigError("what is played cannot be normalized", where="data.normalize")
    fields = {"inputs": [OBSERVATION], "targets": list(FIELDS[1:])}
    return config.model_copy(update={"data": config.data.model_copy(update=fields)})


def environment_of(config: Config, name: str) -> Environment:
    """The environment that `environment:NAME` stands for."""
    arguments = config.task.arguments.get("environment") or {}
    if not isinstance(arguments, Mapping):
        raise ConfigError("task.environment must be a table", where="task.environment")
    return make_environment(_parse(name)["name"], arguments)


def played_dataset(config: Config, kind: str, name: str) -> Dataset:
    """A data set without files: fields and number of samples of what is played.

    Args:
        config: of the run.
        kind: "train" for transitions, else episodes.
        name: as at the top of this file.

    Raises:
        ConfigError: if it is no environment, or its range holds no episode.
    """
    parsed = _parse(name)
    start, stop = 0, config.data.batch_size * EPOCH_BATCHES
    if kind != "train":
        start = int(parsed["start"] or 0)
        stop = int(parsed["stop"]) if parsed["stop"] else start + EPISODES
    elif parsed["stop"]:
        raise ConfigError("training has no range of episodes", where="data.train")
    if start >= stop:
        raise ConfigError(f'there must be an episode in a range ("{name}")', where=f"data.{kind}")
    environment = environment_of(config, name)
    shape, last = tuple(environment.observation_shape), environment.num_actions - 1
    environment.close()
    action = FieldInfo((), "int64", 0, last)
    real, seen = FieldInfo((), "float64"), FieldInfo(shape, "float32")
    fields = dict(zip(FIELDS, (seen, action, real, seen, action, real), strict=True))
    index = Index(fields, (Shard("played", stop, stop),), source=name)
    return Dataset(name, Path(), index, start, stop)


def _parse(name: str) -> re.Match[str]:
    found = _NAME.match(name)
    if found is None:
        raise ConfigError(
            f'an environment must read environment:NAME or environment:NAME[a:b] ("{name}")',
            where="data",
        )
    return found
