"""[model], [task]: the network, and what it learns."""

from __future__ import annotations

from pydantic import Field

from hpc_train.config.schema.types import Open


class Model(Open):
    """Which network; further keys are arguments of its builder, such as hidden = 128."""

    name: str = Field(description="a built-in network, or my_package.module:function")
    sync_batchnorm: bool = Field(
        False, description="batch norm over the whole global batch, whatever its split"
    )


class Task(Open):
    """What is learned; further keys are arguments of the task."""

    name: str = Field("classification", description="a built-in task, or my_package.module:Class")
