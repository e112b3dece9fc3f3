"""Networks, by name; a name with a colon is a user's own builder, `my_package.module:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from hpc_train.models.autoencoder import Autoencoder, autoencoder, conv_autoencoder
from hpc_train.models.cnn import cnn
from hpc_train.models.gan import Gan, dcgan
from hpc_train.models.mlp import mlp
from hpc_train.models.recurrent import gru, lstm
from hpc_train.models.resnet import resnet
from hpc_train.models.table import table
from hpc_train.models.transformer import transformer

__all__ = [
    "MODELS",
    "Autoencoder",
    "Gan",
    "autoencoder",
    "cnn",
    "conv_autoencoder",
    "dcgan",
    "gru",
    "lstm",
    "mlp",
    "resnet",
    "table",
    "transformer",
]

# name -> builder; `input_shape`, `num_classes` and `num_tokens` are offered to whichever asks
MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "autoencoder": autoencoder,
    "cnn": cnn,
    "conv_autoencoder": conv_autoencoder,
    "dcgan": dcgan,
    "gru": gru,
    "lstm": lstm,
    "mlp": mlp,
    "resnet": resnet,
    "table": table,
    "transformer": transformer,
}

Arguments = dict[str, Any]
