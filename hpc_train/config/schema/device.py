"""[device]: where and how the model computes."""

from __future__ import annotations

from typing import Annotated, Literal

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
    compile: bool = Field(False, description="torch.compile: fused kernels, built at the start")
    channels_last: bool = Field(False, description="images go through with their channels last")
    activation_checkpointing: Literal["none", "auto"] | list[str] = Field(
        "none", description="recompute: none, auto, patterns"
    )
    cuda_graphs: bool = Field(
        False, description="GPUs: forward and backward are recorded once and played back"
    )
    cuda_allocator: str | None = Field(
        None,
        examples=["expandable_segments:True"],
        description="PYTORCH_CUDA_ALLOC_CONF",
    )
    memory_fraction: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, examples=[0.5], description="most of a GPU's memory for a rank; default: all"
    )
