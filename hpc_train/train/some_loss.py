"""The loss of some samples, measured in the middle of training: what a technique decides by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn

from hpc_train.config import Config
from hpc_train.data import Dataset, Loader, make_order
from hpc_train.plan import Batch, Work
from hpc_train.strategies import Layout
from hpc_train.tasks import Task, sums_of
from hpc_train.train.feed import Feed
from hpc_train.train.sums import measure
from hpc_train.train.survey import needed_fields
from hpc_train.world import Group, together

MOST_AT_ONCE = 1024  # samples of a part where no micro-batch size is set


class SomeLoss:
    """The mean loss of the first samples of the validation data, exact over all ranks; collective.

    Those of the training data, as they are stored, where there are no validation data.

    Args:
        config: of the run.
        group: the ranks.
        datasets: those of the run.
        feed, task, model: what is measured, as evaluations do.
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
        most: int,
    ) -> None:
        self.data = "validation" if "validation" in datasets else "train"
        self._dataset = datasets[self.data]
        self.num_samples = min(most, self._dataset.num_samples)
        self._fields = needed_fields(config)
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
        order = make_order("none", self._dataset.blocks(), 0, 1)
        with Loader(self._dataset, order, self._fields) as loader:
            tally = together(
                self._group,
                lambda: measure(
                    self._model,
                    self._task.phases[0],
                    self._feed,
                    map(loader.read, parts_of(start, stop, self._size)),
                ),
            )
        layout = Layout(list(sums_of(self._task)), world.size)
        return layout.unpack(self._group.sum(layout.pack(tally, world.rank, None))).mean_loss


def parts_of(start: int, stop: int, size: int) -> Iterator[Work]:
    """Samples [start, stop) of an order, `size` at a time."""
    for number, first in enumerate(range(start, stop, size)):
        last = min(first + size, stop)
        yield Work(Batch(number, 0, first, last), 0, last - first)
