"""[device]: where and how the model computes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpc_train.config.schema.types import PositiveInt, Section


class Device(Section):
    """Where each rank computes."""

    name: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: the rank's GPU if there is one, else the CPU"
    )
    threads: PositiveInt | Literal["auto"] = Field(
        "auto", description="torch threads per rank; auto: its part of the cores"
    )
