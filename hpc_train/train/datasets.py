"""The data sets that a configuration names, opened by all ranks or by one process alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.data import (
    Dataset,
    NodeCache,
    Stage,
    open_dataset,
    share_blocks,
    share_dataset,
    staging_folder,
    with_statistics,
)
from hpc_train.train.played import is_played, played_dataset
from hpc_train.train.survey import needed_fields, normal_inputs, windows_of
from hpc_train.world import together


def open_datasets(config: Config, comm: Comm) -> dict[str, Dataset]:
    """The data sets that the configuration names, by what they are for."""
    if is_played(config):
        names = _dataset_names(config).items()
        return together(comm, lambda: {k: played_dataset(config, k, name) for k, name in names})
    return {
        kind: share_dataset(
            comm,
            name,
            needed_fields(config, kind),
            config.data.block_rows,
            windows_of(config, kind),
            partial(measured, config) if kind == "train" else None,
        )
        for kind, name in _dataset_names(config).items()
    }


def measured(config: Config, train: Dataset) -> Dataset:
    """The training data with what `data.normalize` needs to know of them."""
    return with_statistics(train, normal_inputs(config, train))


def open_alone(config: Config) -> dict[str, Dataset]:
    """`open_datasets` without ranks."""
    if is_played(config):
        return {k: played_dataset(config, k, name) for k, name in _dataset_names(config).items()}
    return {
        kind: open_dataset(
            name,
            needed_fields(config, kind),
            config.data.block_rows,
            windows_of(config, kind),
        )
        for kind, name in _dataset_names(config).items()
    }


def share_node(config: Config, comm: Comm, train: Dataset) -> NodeCache | None:
    """What the ranks of this node share of the training data; collective.

    Other data sets need none: evaluation gives every rank a range of its own.
    """
    if config.data.node_cache is False or comm.world.local_size == 1:
        return None
    node = comm.group(comm.world.local_ranks)
    try:
        return share_blocks(
            node, train, needed_fields(config), config.data.cache_bytes, config.data.node_cache
        )
    finally:
        node.close()


def make_stages(config: Config, datasets: Mapping[str, Dataset]) -> dict[str, Stage]:
    """Copies on the node's disk, by data set, of those that are read again and again.

    Raises:
        DataError: if they cannot be made there.
    """
    if config.data.stage is None or is_played(config):
        return {}
    folder, keep = staging_folder(config.data.stage), config.data.stage_keep
    found = {}
    for kind, dataset in datasets.items():
        if kind != "test":
            files = {extent.shard: dataset.path(extent.shard) for extent in dataset.extents()}
            found[kind] = Stage(folder, files, needed_fields(config, kind), keep=keep)
    return found


def _dataset_names(config: Config) -> dict[str, str]:
    data = config.data
    names = {"train": data.train, "validation": data.validation, "test": data.test}
    return {kind: name for kind, name in names.items() if name is not None}
