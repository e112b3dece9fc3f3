"""Networks, by name; a name with a colon is a user's own builder, `my_package.module:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hpc_train.models.cnn import cnn
from hpc_train.models.gan import Gan, dcgan
from hpc_train.models.mlp import mlp
from hpc_train.models.table import table

__all__ = ["MODELS", "Gan", "cnn", "dcgan", "mlp", "table"]

# name -> builder; `input_shape` and `num_classes` are offered to whichever asks for them
MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "cnn": cnn,
    "dcgan": dcgan,
    "mlp": mlp,
    "table": table,
}

Arguments = dict[str, Any]
