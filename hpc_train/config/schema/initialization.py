"""[initialization]: with which weights training begins."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpc_train.config.schema.types import Positive, Section


class Initialization(Section):
    """With which weights linear and convolutional layers begin; the same on all ranks."""

    name: Literal[
        "default",
        "xavier_uniform",
        "xavier_normal",
        "kaiming_uniform",
        "kaiming_normal",
        "orthogonal",
        "truncated_normal",
        "lsuv",
    ] = Field("default", description="default: as the layers have it; lsuv looks at a batch")
    nonlinearity: Literal["linear", "relu", "tanh", "selu", "sigmoid"] = Field(
        "relu", description="xavier, kaiming, orthogonal: what follows a layer sets their gain"
    )
    std: Positive = Field(0.02, description="truncated_normal: standard deviation, cut at twice it")
