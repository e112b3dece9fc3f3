"""[data]: samples, their order and portions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hpc_train.config.schema.types import Bytes, Names, Positive, PositiveInt, Section


class Data(Section):
    """Where samples come from and in which order and portions they are used."""

    train: str = Field(description="folder, HDF5 file or builtin:NAME; NAME[a:b]: samples a .. b-1")
    validation: str | None = Field(
        None, examples=["validation.h5"], description="evaluated every run.evaluate"
    )
    test: str | None = Field(
        None, examples=["builtin:digits/test"], description="evaluated once, at the end"
    )
    inputs: Names = Field(description="dataset (or several) that the model gets")
    targets: Names | None = Field(
        None, examples=["label"], description="dataset (or several) that it shall predict"
    )
    window: PositiveInt | None = Field(
        None, examples=[64], description="a sample is so many rows of a series, such as a text"
    )
    stride: PositiveInt | None = Field(
        None,
        examples=[1],
        description="rows from one training window to the next; or data.window",
    )
    shift: int | None = Field(
        None,
        ge=0,
        examples=[1],
        description="rows by which targets lie after inputs; 1 for next_token, else 0",
    )
    batch_size: PositiveInt = Field(64, description="samples of a global batch, over all ranks")
    micro_batch_size: PositiveInt | None = Field(
        None,
        examples=[32],
        description="most samples on the device at once; more are accumulated",
    )
    shuffle: Literal["full", "window", "none"] = Field(
        "window",
        description="window: mix windows of blocks; full: mix all samples; none",
    )
    shuffle_window: PositiveInt | Literal["auto"] = Field(
        "auto", description="blocks that are mixed with each other"
    )
    sampling: Literal["uniform", "balanced", "weighted"] = Field(
        "uniform",
        description="equally often: all samples, all classes; or by weight",
    )
    sampling_weights: str | None = Field(
        None, examples=["weight"], description="dataset of weights >= 0, one per sample"
    )
    samples_per_epoch: PositiveInt | None = Field(
        None, examples=[100000], description="length of an epoch; all samples once if not set"
    )
    block_rows: PositiveInt = Field(
        1024, description="rows read together where the file is not chunked"
    )
    scale: Positive | Literal["auto", "none"] = Field(
        "auto", description="factor on the inputs; auto: 1/255 for uint8, otherwise none"
    )
    normalize: bool = Field(
        False,
        description="inputs with mean 0 and deviation 1 in each channel, not scale",
    )
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="skip: go on without chunks that cannot be read"
    )
    prefetch_batches: PositiveInt = Field(4, description="batches that are read ahead")
    cache_bytes: Bytes = Field(
        256 * 2**20,
        examples=["256 MiB"],
        description="blocks that a rank keeps in memory; mapped ones count an eighth",
    )
    node_cache: bool | Literal["auto"] = Field(
        "auto", description="ranks of a node share what they decode; auto: if it fits"
    )
    stage: str | None = Field(
        None,
        examples=["$TMPDIR"],
        description="folder on the node's disk, to which shards are copied",
    )
    stage_keep: bool = Field(False, description="leave the copies there for the next run")
