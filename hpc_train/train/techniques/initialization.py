"""First weights: by a rule for each layer, and with LSUV by a look at the first samples."""

from __future__ import annotations

from typing import Any

from torch import nn

from hpc_train.config import Config
from hpc_train.models.initialization import equalize, initialize
from hpc_train.train.seeds import seeded_weights


def reshape(config: Config, model: nn.Module) -> nn.Module:
    """Draw the weights anew, if the configuration names a rule; the same on all ranks."""
    section = config.initialization
    if section.name != "default":
        with seeded_weights(config.run.seed):
            initialize(model, section.name, section.nonlinearity, section.std)
    return model


def look(model: nn.Module, inputs: Any) -> None:
    """LSUV: scale the layers by what they make of the first samples.

    Args:
        inputs: what the model gets of them.
    """
    was_training = model.training
    model.eval()
    equalize(model, lambda: model(inputs))
    model.train(was_training)
