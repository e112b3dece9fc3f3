"""What a study of loading measures; checked before anything is read."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hpc_train.data import Dataset, Order, auto_window, make_order, open_dataset
from hpc_train.data.dataset import locate
from hpc_train.data.hdf5 import available, is_numeric, open_file
from hpc_train.data.index import NAME, Index
from hpc_train.data.scan import find_files
from hpc_train.errors import DataError
from hpc_train.plan import Course, Work


@dataclass(frozen=True)
class Settings:
    """What is read, and how long.

    Attributes:
        path: a data set as users name it.
        fields: the datasets of a sample; empty for all that have numbers.
        batch_size: samples of a batch.
        shuffle: name of the order.
        rounds: how often each side has its turn.
        seconds: how long a turn lasts at most; it ends earlier if there is no more work, and ours
            not before one window of shuffling, whose blocks are all read at its beginning.
        cache_bytes: budget of our side.
        epochs: of which all sides read batches, one after the other; our side keeps blocks that it
            decoded, so only where nothing is decoded may there be more than one.
        cold: whether the system's page cache is emptied of the files before each turn.
    """

    path: str
    fields: tuple[str, ...] = ()
    batch_size: int = 256
    shuffle: str = "window"
    rounds: int = 3
    seconds: float = 1.0
    cache_bytes: int = 256 * 2**20
    epochs: int = 1
    cold: bool = False

    def to_json(self) -> dict[str, Any]:
        """All of them; of the path only its last part."""
        return {**asdict(self), "path": Path(self.path).name}


@dataclass(frozen=True)
class Workload:
    """The same batches for every side.

    Attributes:
        works: one rank's work: whole batches.
        window_samples: samples that are mixed with each other.
    """

    settings: Settings
    dataset: Dataset
    fields: tuple[str, ...]
    order: Order
    works: tuple[Work, ...]
    window_samples: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample in memory, over the fields that are read."""
        return sum(self.dataset.fields[name].sample_bytes for name in self.fields)

    @property
    def files(self) -> list[Path]:
        """The shards."""
        return [self.dataset.path(n) for n in range(len(self.dataset.index.shards))]


def make_workload(settings: Settings) -> Workload:
    """Open the data that `settings` name.

    Raises:
        DataError: if they cannot be read, or hold no numbers.
    """
    fields = settings.fields or _all_fields(locate(settings.path))
    dataset = open_dataset(settings.path, fields, 1024)
    blocks = dataset.blocks()
    sample_bytes = sum(dataset.fields[name].sample_bytes for name in fields)
    window = auto_window(blocks, settings.batch_size, sample_bytes)
    course = Course(dataset.num_samples, settings.batch_size)
    batches = course.batches(0, settings.epochs * course.per_epoch)
    works = tuple(Work(batch, 0, batch.size) for batch in batches)
    order = make_order(settings.shuffle, blocks, 0, window)
    mixed = min(window * blocks.rows, dataset.num_samples) if settings.shuffle == "window" else 0
    return Workload(settings, dataset, fields, order, works, mixed)


def _all_fields(path: Path) -> tuple[str, ...]:
    """The fields of a data set; of foreign files those as long as the largest dataset."""
    if (path / NAME).is_file():
        return tuple(Index.read(path).fields)
    file = find_files(path)[0]
    with open_file(file) as opened:
        found = {
            name: stored
            for name, stored in available(opened).items()
            if stored.shape and is_numeric(opened[name].dtype)
        }
    if not found:
        raise DataError("file must hold datasets of numbers (datasets: none)", where=str(file))
    largest = max(found.values(), key=lambda stored: stored.shape[0] * stored.sample_bytes)
    return tuple(name for name, stored in found.items() if stored.shape[0] == largest.shape[0])
