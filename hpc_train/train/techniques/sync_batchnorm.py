"""Batch norm: statistics of the whole global batch, or a warning where those of a part are poor."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager

from torch import nn

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.errors import ConfigError
from hpc_train.models.sync_batchnorm import Meeting, find_meeting, has_plain, synchronize
from hpc_train.train.technique import Technique

logger = logging.getLogger(__name__)

SMALL = 16  # samples below which the statistics of a share are poor: Wu and He, ECCV 2018, figure 1


class SyncBatchNorm(Technique):
    """Lets the layers of all ranks meet inside each step."""

    name = "sync_batchnorm"
    needs_everyone = True

    def __init__(self, meeting: Meeting, comm: Comm) -> None:
        meeting.attach(comm.sum)
        self._meeting = meeting

    def stepping(self) -> AbstractContextManager[None]:
        """Around forward and backward."""
        return self._meeting.step()


def reshape(config: Config, model: nn.Module) -> nn.Module:
    """Put synchronous layers in the place of batch norms, if the configuration asks for them.

    Raises:
        ConfigError: if there are none, or a share would not go through the model at once.
    """
    if not config.model.sync_batchnorm:
        return model
    data = config.data
    if data.micro_batch_size is not None and data.micro_batch_size < data.batch_size:
        raise ConfigError(
            "model.sync_batchnorm needs a rank's whole share at once "
            f"(data.micro_batch_size: {data.micro_batch_size})",
            where="model.sync_batchnorm",
            hint="leave data.micro_batch_size out",
        )
    model = synchronize(model)
    if find_meeting(model) is None:
        raise ConfigError(
            f"the model has no batch norm (model.name: {config.model.name})",
            where="model.sync_batchnorm",
            hint="leave model.sync_batchnorm out",
        )
    return model


def make(config: Config, model: nn.Module, comm: Comm, counts: Sequence[int]) -> Technique | None:
    """The technique, if the model has synchronous layers; else a warning where it should.

    Args:
        counts: samples of each rank.
    """
    meeting = find_meeting(model)
    if meeting is not None:
        return SyncBatchNorm(meeting, comm)
    text = warning(counts, config.data.micro_batch_size) if has_plain(model) else None
    if text is not None and comm.world.is_coordinator:
        logger.warning("%s", text)
    return None


def warning(counts: Sequence[int], micro_batch_size: int | None) -> str | None:
    """What is poor about the statistics of plain batch norm; None if nothing is."""
    shares = [count for count in counts if count]
    smallest = min([*shares, micro_batch_size or max(shares)])
    cure = "model.sync_batchnorm = true takes those of the whole batch"
    if len(set(shares)) > 1:
        return (
            f"batch norm takes its statistics from unequal shares ({min(shares)} to "
            f"{max(shares)} samples), so that the result depends on the split; {cure}"
        )
    if smallest < SMALL:
        return f"batch norm takes its statistics from {smallest} samples at a time; {cure}"
    return None
