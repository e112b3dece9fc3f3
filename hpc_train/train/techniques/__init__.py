"""All techniques: one file each, and the order in which they are applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.data import Dataset
from hpc_train.errors import ConfigError
from hpc_train.strategies import Learner
from hpc_train.tasks import Task
from hpc_train.train.feed import Feed
from hpc_train.train.player import Player
from hpc_train.train.some_loss import SomeLoss
from hpc_train.train.survey import Survey
from hpc_train.train.technique import Technique, Techniques
from hpc_train.train.techniques import (
    augmentation,
    averaging,
    dropout,
    early_stopping,
    loss_scaling,
    max_norm,
    mixing,
    penalty,
    plateau,
    pruning,
    quantization,
    samples,
    sync_batchnorm,
    transfer,
)


@dataclass(frozen=True)
class Needs:
    """What techniques are made of."""

    config: Config
    comm: Comm
    survey: Survey
    model: nn.Module
    learners: Sequence[Learner]
    task: Task
    feed: Feed
    datasets: Mapping[str, Dataset]
    player: Player | None = None

    def loss(self, most: int) -> SomeLoss:
        """What measures the loss of at most `most` samples.

        Raises:
            ConfigError: if there are no stored samples.
        """
        if self.player is not None:
            raise ConfigError(
                "layers are measured on stored samples (data.train is an environment)",
                where="compress.prune",
                hint='use "magnitude"',
            )
        return SomeLoss(
            self.config,
            self.comm,
            self.datasets,
            self.feed,
            self.task,
            self.model,
            self.survey.window,
            most,
        )


# name -> what makes it, or None where the configuration leaves it off
MAKERS: dict[str, Callable[[Needs], Technique | None]] = {
    # first: takes its factor back before others add to the gradients
    "loss_scaling": lambda needs: loss_scaling.make(needs.config),
    "augmentation": lambda needs: augmentation.make(needs.config),
    "mixing": lambda needs: mixing.make(needs.config),
    "dropout": lambda needs: dropout.make(needs.config, needs.model),
    "sync_batchnorm": lambda needs: sync_batchnorm.make(
        needs.config, needs.model, needs.comm, needs.survey.plan.counts
    ),
    "transfer": lambda needs: transfer.make(needs.config, needs.learners, needs.model),
    "penalty": lambda needs: penalty.make(needs.config),
    "max_norm": lambda needs: max_norm.make(needs.config),
    # after what else changes gradients and weights
    "pruning": lambda needs: pruning.make(
        needs.config, needs.survey, needs.model, needs.learners, needs.comm, needs.loss
    ),
    "quantization": lambda needs: quantization.make(
        needs.config, needs.survey.num_batches, needs.model, needs.comm
    ),
    "plateau": lambda needs: plateau.make(needs.config),
    "averaging": lambda needs: averaging.make(
        needs.config, needs.survey.num_batches, needs.survey.course.num_samples, needs.learners
    ),
    "early_stopping": lambda needs: early_stopping.make(needs.config, needs.model, needs.learners),
    "player": lambda needs: needs.player,
    "samples": lambda needs: samples.make(
        needs.task,
        needs.model,
        needs.config.run.dir,
        writes=needs.comm.world.is_coordinator,
    ),
}


def make_techniques(needs: Needs, extra: Sequence[Technique] = ()) -> Techniques:
    """The techniques that the configuration asks for, in the order of `MAKERS`, then `extra`."""
    made = (make(needs) for make in MAKERS.values())
    return Techniques([*(technique for technique in made if technique is not None), *extra])
