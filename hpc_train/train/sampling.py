"""Which samples an epoch of training is made of."""

from __future__ import annotations

from typing import Any

from hpc_train.config import Config
from hpc_train.data import Dataset, Order, make_order
from hpc_train.data.weights import balancing, stated
from hpc_train.errors import ConfigError, DataError, unknown
from hpc_train.train.played import is_played


def training_order(config: Config, dataset: Dataset, window: int) -> Order:
    """The order of the training data, with `window` blocks mixed; reads weights if there are any.

    Raises:
        DataError: if the weights cannot be read or used.
    """
    data = config.data
    weights = None
    if data.sampling == "balanced":
        weights = balancing(dataset, (data.targets or [""])[0])
    elif data.sampling == "weighted":
        weights = stated(dataset, data.sampling_weights or "")
    return make_order(
        data.shuffle,
        dataset.blocks(),
        config.run.seed,
        window,
        length=data.samples_per_epoch,
        weights=weights,
    )


def epoch_length(config: Config, train: Dataset) -> int:
    """How many samples an epoch of training has."""
    return config.data.samples_per_epoch or train.num_samples


def training_orders(config: Config, train: Dataset, window: int) -> dict[str, Order]:
    """The order of each data set that has one of its own: the training data, if it is in files."""
    return {} if is_played(config) else {"train": training_order(config, train, window)}


def sampling_fields(config: Config) -> list[str]:
    """Fields of the training data that are read for sampling alone."""
    name = config.data.sampling_weights
    return [name] if name and config.data.sampling == "weighted" else []


def sampling_of(config: Config, dataset: Dataset) -> list[Any] | None:
    """What the order depends on beside seed, shuffle, window and length; None without sampling."""
    data = config.data
    if data.sampling == "uniform" and data.samples_per_epoch is None:
        return None
    return [data.sampling, data.sampling_weights, dataset.num_samples]


def check_sampling(config: Config, dataset: Dataset) -> None:
    """Check that samples can be drawn as the configuration says.

    Raises:
        ConfigError, DataError: if not.
    """
    data = config.data
    if (data.sampling == "weighted") != (data.sampling_weights is not None):
        raise ConfigError(
            'sampling = "weighted" and sampling_weights need each other '
            f'(sampling: "{data.sampling}", sampling_weights: {data.sampling_weights})',
            where="data.sampling",
        )
    for name in sampling_fields(config):
        if name not in dataset.fields:
            raise DataError(unknown("dataset", name, dataset.fields), where=dataset.name)
        if dataset.fields[name].shape != ():
            raise DataError(
                f"there must be one weight per sample ({name}: shape {dataset.fields[name].shape})",
                where="data.sampling_weights",
            )
    label = dataset.fields[data.targets[0]] if data.targets else None
    if data.sampling == "balanced" and (
        label is None or label.shape != () or "int" not in label.dtype
    ):
        raise ConfigError(
            'sampling = "balanced" needs targets that are classes: integers, one per sample',
            where="data.sampling",
            hint='sampling = "weighted" draws by a dataset of weights',
        )
