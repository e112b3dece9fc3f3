"""[[augmentation]]: what happens to samples before the model gets them in training."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hpc_train.config.schema.types import Open


class Augmentation(Open):
    """A random change of training samples; further keys are its arguments."""

    name: str = Field(examples=["flip"], description="such as flip, crop, rotation or cutout")
    probability: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, examples=[0.5], description="with which a sample is changed; default: 1, flip: 0.5"
    )
    input: str | None = Field(
        None, examples=["image"], description="which of data.inputs; default: the first"
    )
