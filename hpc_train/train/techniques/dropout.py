"""Dropout: the rate of all dropout layers, and masks that do not depend on the split."""

from __future__ import annotations

from torch import nn

from hpc_train.augment.dropout import Present, find_present, replace_dropout
from hpc_train.config import Config
from hpc_train.errors import ConfigError
from hpc_train.plan import Work
from hpc_train.tasks import TensorBatch
from hpc_train.train.technique import Technique


class Dropout(Technique):
    """Tells the layers which samples they are given."""

    name = "dropout"

    def __init__(self, present: Present) -> None:
        self._present = present

    def transform(self, batch: TensorBatch, work: Work) -> TensorBatch:
        """The batch as it is."""
        self._present.epoch, self._present.ids = work.batch.epoch, batch.ids
        return batch


def reshape(config: Config, model: nn.Module) -> nn.Module:
    """Give the model's dropout layers the rate of the configuration, if it has one.

    Raises:
        ConfigError: if the model has no such layers.
    """
    rate = config.regularization.dropout
    if rate is not None and replace_dropout(model, rate, config.run.seed) is None:
        raise ConfigError(
            f"the model has no dropout layers (model.name: {config.model.name})",
            where="regularization.dropout",
            hint="leave it out, or give the model some, such as nn.Dropout",
        )
    return model


def make(config: Config, model: nn.Module) -> Technique | None:
    """The technique, if the configuration gives a rate."""
    present = find_present(model) if config.regularization.dropout is not None else None
    return None if present is None else Dropout(present)
