"""What augmentations make of samples, to be looked at."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.config import Config
from hpc_train.data import Loader, make_order, open_dataset
from hpc_train.errors import ConfigError
from hpc_train.plan import Batch, Work
from hpc_train.train.datasets import measured
from hpc_train.train.feed import Feed, normal_of
from hpc_train.train.survey import needed_fields, normal_inputs
from hpc_train.train.techniques.augmentation import Augmented, pipelines


def preview(config: Config, num_samples: int, num_epochs: int) -> NDArray[np.float64]:
    """The first samples of the training data, as they are and as they are trained on.

    Args:
        config: of a run.
        num_samples: how many, >= 1; fewer if there are no more.
        num_epochs: how many epochs, >= 1.

    Returns:
        the first input, or the one that is augmented: shape (samples, 1 + epochs, *sample shape).

    Raises:
        ConfigError: if nothing is augmented, or an augmentation cannot be.
    """
    chosen = pipelines(config)
    if not chosen:
        raise ConfigError(
            "there is no augmentation in this configuration",
            where="augmentation",
            hint="""add one: 'augmentation=[{name = "rotation"}]'""",
        )
    name = next(iter(chosen))
    data = config.data
    dataset = open_dataset(data.train, needed_fields(config), data.block_rows)
    train = measured(config, dataset)
    here, normal = torch.device("cpu"), [n for n in normal_inputs(config, train) if n == name]
    feed = Feed(
        [name],
        [],
        here,
        torch.float64,
        data.scale,
        None,
        normal=normal_of(train, normal, here, torch.float64),
    )
    count = min(num_samples, dataset.num_samples)
    technique, rows = Augmented(chosen), []
    with Loader(dataset, make_order("none", dataset.blocks(), 0, 1), [name]) as loader:
        samples = loader.read(Work(Batch(0, 0, 0, count), 0, count))
        plain = feed.batch(samples, 0, count)
        rows.append(plain.inputs[name])
        for epoch in range(num_epochs):
            work = Work(Batch(0, epoch, 0, count), 0, count)
            rows.append(technique.transform(plain, work).inputs[name])
        return torch.stack(rows, dim=1).numpy()
