"""The data sets that a configuration names, opened by all ranks or by one process alone."""

from __future__ import annotations

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.data import Dataset, open_dataset, share_dataset
from hpc_train.train.played import is_played, played_dataset
from hpc_train.train.survey import needed_fields, windows_of
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
        )
        for kind, name in _dataset_names(config).items()
    }


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


def _dataset_names(config: Config) -> dict[str, str]:
    data = config.data
    names = {"train": data.train, "validation": data.validation, "test": data.test}
    return {kind: name for kind, name in names.items() if name is not None}
