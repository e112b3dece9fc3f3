"""What the configuration tells the strategies."""

from __future__ import annotations

from hpc_train.config import Config
from hpc_train.config.schema import parse_seconds
from hpc_train.errors import ConfigError
from hpc_train.schedule import find_policy
from hpc_train.strategies import Compression, Means, Options, Rounds, Sharding, Terms


def make_options(config: Config) -> Options:
    """What the configuration tells the strategies.

    Raises:
        ConfigError: if the strategy cannot do what is asked for.
    """
    section, schedule = config.strategy, config.schedule
    _check(config)
    seconds = parse_seconds(section.timeout)
    assert seconds is not None  # the schema has checked it
    return Options(
        means=_means(config),
        sharding=Sharding(
            wanted=section.shard_optimizer,
            survives=config.recovery.shrink,
            respawns=config.recovery.respawn,
            rewrites=config.regularization.max_norm is not None or config.compress.prune != "none",
            needs_gradients=config.compress.prune == "saliency",
        ),
        server=Terms(
            staleness=None if section.staleness == "unbounded" else section.staleness,
            server_trains=section.server_trains,
            damping=section.damping,
            seconds=seconds,
            skips=config.optimizer.non_finite == "skip",
            measures=find_policy(schedule.policy).measures,
            quantum=config.data.micro_batch_size or 1,
            servers=section.servers,
        ),
        rounds=Rounds(
            period=section.period,
            synchronous_steps=section.synchronous_steps,
            outer_momentum=section.outer_momentum,
            within_node=section.within_node == "synchronous",
        ),
    )


def _means(config: Config) -> Means:
    """How gradients are summed; "auto" overlap is for the strategy that can."""
    section = config.comm
    # what is played back calls nobody when a gradient is there
    claims = find_policy(config.schedule.policy).reserves  # no pass is known to be the last one
    able = config.strategy.name == "allreduce" and not (config.device.cuda_graphs or claims)
    return Means(
        section.collective,
        Compression(section.gradient_compression, section.topk_density, section.powersgd_rank),
        section.overlap if isinstance(section.overlap, bool) else None if able else False,
    )


def _check(config: Config) -> None:
    """Check that the strategy can do what else is asked for."""
    name, averages = config.strategy.name, config.regularization
    if name != "allreduce" and config.precision.autocast == "float16":
        raise _refused(
            f'strategy.name = "{name}" cannot scale the losses of float16 '
            "(precision.autocast: float16)",
            "precision.autocast",
            'use "bfloat16", or strategy.name = "allreduce"',
        )
    if name != "allreduce" and config.comm.gradient_compression != "none":
        raise _refused(
            f'strategy.name = "{name}" cannot compress gradients '
            f"(comm.gradient_compression: {config.comm.gradient_compression})",
            "comm.gradient_compression",
            'leave it out, or use strategy.name = "allreduce"',
        )
    if name != "allreduce" and config.comm.overlap is True:
        raise _refused(
            f'strategy.name = "{name}" sums no gradients while backward goes on '
            "(comm.overlap: true)",
            "comm.overlap",
            'leave it out, or use strategy.name = "allreduce"',
        )
    if find_policy(config.schedule.policy).reserves:
        _check_claims(config)
    if name == "local_sgd" and (averages.ema_decay or averages.swa_start is not None):
        raise _refused(
            'strategy.name = "local_sgd" cannot average weights over time: between rounds each '
            "rank has its own (regularization.ema_decay, regularization.swa_start)",
            "regularization",
            'leave them out, or use strategy.name = "allreduce"',
        )


def _check_claims(config: Config) -> None:
    """Check that samples can go to whoever is free."""
    strategy = config.strategy.name
    problems = {
        "strategy.name": (
            strategy != "allreduce",
            f'strategy.name = "{strategy}" has another way to let nobody wait',
            'use schedule.policy = "min_finish_time", or strategy.name = "allreduce"',
        ),
        "model.sync_batchnorm": (
            bool(config.model.sync_batchnorm),
            "layers that meet inside a step need the same passes on all ranks",
            'use schedule.policy = "min_finish_time"',
        ),
        "comm.overlap": (
            config.comm.overlap is True,
            "no rank knows which of its passes is the last one, in which sums could begin",
            'leave it out, or use schedule.policy = "min_finish_time"',
        ),
        "data.on_error": (
            config.data.on_error == "skip",
            "samples that cannot be read leave gaps in what ranks claim",
            'use schedule.policy = "min_finish_time", or data.on_error = "stop"',
        ),
    }
    for where, (is_asked_for, why, hint) in problems.items():
        if is_asked_for:
            raise _refused(f'schedule.policy = "dynamic" cannot go with it: {why}', where, hint)


def _refused(message: str, where: str, hint: str) -> ConfigError:
    error = ConfigError(message, where=where, hint=hint)
    error.agreed = True  # all ranks have one configuration
    return error
