"""What the configuration tells the strategies."""

from __future__ import annotations

from hpc_train.config import Config
from hpc_train.config.schema import parse_seconds
from hpc_train.errors import ConfigError
from hpc_train.schedule import find_policy
from hpc_train.strategies import Options, Terms


def make_options(config: Config) -> Options:
    """What the configuration tells the strategies.

    Raises:
        ConfigError: if a parameter server cannot do what is asked for.
    """
    section, schedule = config.strategy, config.schedule
    if section.name == "parameter_server" and config.precision.autocast == "float16":
        error = ConfigError(
            "a parameter server cannot scale the losses of float16 (precision.autocast: float16)",
            where="precision.autocast",
            hint='use "bfloat16", or strategy.name = "allreduce"',
        )
        error.agreed = True  # all ranks have one configuration
        raise error
    seconds = parse_seconds(section.timeout)
    assert seconds is not None  # the schema has checked it
    return Options(
        collective=config.comm.collective,
        server=Terms(
            staleness=None if section.staleness == "unbounded" else section.staleness,
            server_trains=section.server_trains,
            damping=section.damping,
            seconds=seconds,
            skips=config.optimizer.non_finite == "skip",
            measures=find_policy(schedule.policy).measures,
            quantum=config.data.micro_batch_size or 1,
        ),
    )
