"""The loss of some samples, measured in the middle of training: what a technique decides by."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from hpc_train.config import Config
from hpc_train.data import Dataset, Loader, Order, make_order
from hpc_train.plan import works
from hpc_train.strategies import Layout, Tally
from hpc_train.tasks import Task, sums_of
from hpc_train.train.feed import Feed
from hpc_train.train.sampling import epoch_length, training_order
from hpc_train.train.sums import measure
from hpc_train.train.survey import needed_fields
from hpc_train.world import Group, together

MOST_AT_ONCE = 1024  # samples of a part where no micro-batch size is set


class SomeLoss:
    """The mean loss of the first samples of the validation data, exact over all ranks; collective.

    Where there are no validation data, of the first samples of an epoch of training.

    Args:
        config: of the run.
        group: the ranks.
        datasets: those of the run.
        feed, task, model: what is measured, as evaluations do.
        window: blocks of the training data that are mixed.
        most: how many samples, >= 1.
    """

    def __init__(
        self,
        config: Config,
        group: Group,
        datasets: Mapping[str, Dataset],
        feed: Feed,
        task: Task,
        model: nn.Module,
        window: int,
        most: int,
    ) -> None:
        self.data = "validation" if "validation" in datasets else "train"
        self._dataset = datasets[self.data]
        self._order, length = measured_order(config, datasets, self.data, window)
        self.num_samples = min(most, length)
        self._fields = needed_fields(config)
        self._skips = config.data.on_error == "skip"
        self._size = config.data.micro_batch_size or min(MOST_AT_ONCE, config.data.batch_size)
        self._group, self._feed, self._task, self._model = group, feed, task, model

    def __call__(self) -> float:
        """The loss of the model as it is now, the same on every rank.

        Raises:
            RankError: on every rank, if it fails on one.
        """
        world = self._group.world
        start, stop = (
            self.num_samples * rank // world.size for rank in (world.rank, world.rank + 1)
        )

        def part() -> Tally:
            some = works(start, stop, self._size)
            with self._open() as loader:
                return measure(
                    self._model, self._task.phases[0], self._feed, map(loader.read, some)
                )

        tally = together(self._group, part)
        layout = Layout(list(sums_of(self._task)), world.size)
        return layout.unpack(self._group.sum(layout.pack(tally, world.rank, None))).mean_loss

    def _open(self) -> Loader:
        return Loader(self._dataset, self._order, self._fields, skip_damage=self._skips)


def measured_order(
    config: Config, datasets: Mapping[str, Dataset], kind: str, window: int
) -> tuple[Order, int]:
    """In which order samples are measured, and how many there are.

    Raises:
        DataError: if the weights of training samples cannot be read.
    """
    dataset = datasets[kind]
    if kind == "train":
        return training_order(config, dataset, window), epoch_length(config, dataset)
    return make_order("none", dataset.blocks(), 0, 1), dataset.num_samples
