"""Metrics that a configuration looks at: whether they will be measured."""

from __future__ import annotations

from collections.abc import Sequence

from hpc_train.checkpoint import Best
from hpc_train.config import Config
from hpc_train.errors import ConfigError, unknown


def check_wanted(config: Config, metrics: Sequence[str]) -> None:
    """Check every metric that the configuration looks at.

    Args:
        metrics: what the task measures.
    """
    for where, told in {
        "checkpoint.keep_best": config.checkpoint.keep_best,
        "learning_rate.metric": config.learning_rate.metric
        if config.learning_rate.name == "plateau"
        else None,
        "early_stopping.metric": config.early_stopping.metric,
        "compress.floor_metric": config.compress.floor_told,
    }.items():
        if told is not None:
            check_metric(config, told, where, metrics)


def check_meets(config: Config, where: str) -> None:
    """Check that all ranks hold equal weights, and meet, after every update, as `where` needs.

    Raises:
        ConfigError: for any strategy but all-reduce.
    """
    name = config.strategy.name
    if name != "allreduce":
        raise ConfigError(
            f'ranks must meet after every update for {where} (strategy.name: "{name}")',
            where=where,
            hint='use strategy.name = "allreduce", or leave it out',
        )


def check_metric(config: Config, text: str, where: str, metrics: Sequence[str]) -> None:
    """Check that a metric of the validation data will be measured.

    Args:
        text: such as "max accuracy"; where: the key that says so.
        metrics: what the task measures.
    """
    known = ["loss", *metrics]
    metric = Best.parse(text).metric
    if metric not in known:
        raise ConfigError(unknown("metric", metric, known), where=where)
    if config.data.validation is None:
        key = where.rpartition(".")[2]
        raise ConfigError(
            f'{where} needs data.validation ({key}: "{text}")',
            where=where,
            hint=f"name validation data, or leave {key} out",
        )
