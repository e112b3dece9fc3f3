"""A trained model on a data set, on any number of ranks: exact, in order, the same to the bit.

    samples   | portion 0 | portion 1 | portion 2 | portion 3 | 4 |     of one size, but the last
    rank            0           0           1           1       1

Portions do not depend on the number of ranks, and neither does anything else that is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.config.schema.checkpoint import Checkpoint
from hpc_train.config.schema.initialization import Initialization
from hpc_train.config.schema.learning_rate import LearningRate
from hpc_train.config.schema.ranks import Comm as Collectives
from hpc_train.config.schema.ranks import Schedule
from hpc_train.config.schema.regularization import EarlyStopping
from hpc_train.config.schema.strategy import Strategy
from hpc_train.config.schema.transfer import Transfer
from hpc_train.data.arrays import Rows
from hpc_train.data.loader import Samples
from hpc_train.errors import ConfigError
from hpc_train.plan import Work, works
from hpc_train.tasks import TensorBatch
from hpc_train.train.build import Parts, build
from hpc_train.train.ensemble import open_model
from hpc_train.train.evaluation import evaluate
from hpc_train.train.played import is_played
from hpc_train.world import agree, on_coordinator, together

KIND = "test"  # what the data set is called in `Parts`
_MOST = 1024  # samples of a portion where no micro-batch size is set

# from a batch to arrays by name, the first axis the sample
Function = Callable[[TensorBatch], Mapping[str, torch.Tensor]]


@dataclass(frozen=True)
class Applied:
    """A trained model beside a data set.

    Attributes:
        parts: of a run whose test data are the data set, with the trained weights.
        step: updates until the checkpoint.
        folder: the run.
        data: how the user calls the data set.
    """

    parts: Parts
    step: int
    folder: Path
    data: str

    @property
    def num_samples(self) -> int:
        """How many samples the data set has."""
        return self.parts.loaders[KIND].dataset.num_samples

    def evaluate(self) -> dict[str, float]:
        """Mean loss and metrics over all samples, the same on every rank."""
        return evaluate(self.parts, KIND)


@contextmanager
def applied(folder: Path, data: str, which: str, comm: Comm) -> Iterator[Applied]:
    """The model of a run, ready to see the samples of a data set; collective.

    Args:
        folder: the run directory, or that of an ensemble.
        data: the data set, as `data.test` names one.
        which: the checkpoint: "last", "best" or "step-N".

    Raises:
        RankError: on every rank, if one cannot open run or data.
    """
    trained = together(comm, lambda: open_model(folder, which))
    config = together(comm, lambda: _for_data(trained.config, data))
    parts = build(config, comm)
    try:
        model = trained.model.to(parts.device, parts.feed.dtype).eval()
        yield Applied(replace(parts, model=model), trained.step, folder, data)
    finally:
        parts.close()


def _for_data(config: Config, data: str) -> Config:
    """The configuration of a run without what matters to training alone."""
    if is_played(config):
        raise ConfigError(
            f'a task that plays has no samples to look at ("{config.task.name}")',
            where="task.name",
            hint="its evaluations are in metrics.jsonl of the run",
        )
    plain = {
        # the training data are looked at, not read
        "data": config.data.model_copy(
            update={"test": data, "validation": None, "stage": None, "node_cache": False}
        ),
        "checkpoint": Checkpoint(),
        "initialization": Initialization(),
        "learning_rate": LearningRate(),
        "comm": Collectives(collective="native"),
        "schedule": Schedule(),
        "early_stopping": EarlyStopping(),
        "strategy": Strategy(),
        "transfer": Transfer(),
        "ensemble": config.ensemble.model_copy(update={"members": 1}),
    }
    return config.model_copy(update=plain)


def write(applied: Applied, out: Path, function: Function) -> dict[str, tuple[int, ...]]:
    """Write what `function` makes of all samples to an HDF5 file, in their order; collective.

    The file is there completely, or not at all.

    Returns:
        The shape of each dataset.

    Raises:
        RankError: on every rank.
    """
    parts, comm = applied.parts, applied.parts.comm
    size = parts.config.data.micro_batch_size or min(_MOST, parts.config.data.batch_size)
    portions = list(works(0, applied.num_samples, size))
    rank, ranks = comm.world.rank, comm.world.size
    first, stop = (len(portions) * r // ranks for r in (rank, rank + 1))
    own = portions[first:stop]

    def begin() -> list[object]:
        found = dict(_arrays(applied, portions[:1], function))[0]
        kinds = {n: ([applied.num_samples, *a.shape[1:]], a.dtype.str) for n, a in found.items()}
        notes = {"run": str(applied.folder), "step": applied.step, "data": applied.data}
        return [*Rows.begin(out, kinds, notes), {n: shape for n, (shape, _) in kinds.items()}]

    draft, offsets, shapes = on_coordinator(comm, begin)
    rows = Rows(out, draft, offsets)
    error: Exception | None = None
    try:
        for start, arrays in _arrays(applied, own, function):
            rows.write(start, arrays)
    except Exception as raised:
        error = raised
    try:
        agree(comm, error)
        on_coordinator(comm, rows.finish)
    finally:
        if comm.world.is_coordinator:
            rows.discard()
    return {name: tuple(shape) for name, shape in shapes.items()}


def _arrays(
    applied: Applied, portions: list[Work], function: Function
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Where each portion begins, and what `function` makes of it."""
    parts = applied.parts
    loader = parts.loaders[KIND]
    loader.follow(iter(portions))
    with torch.no_grad():
        for work in portions:
            samples: Samples = loader.get(work)
            batch = parts.feed.batch(samples, 0, len(samples.ids))
            with parts.feed.autocast():
                found = function(batch)
            yield work.batch.first, {n: _host(t) for n, t in found.items()}


def _host(tensor: torch.Tensor) -> NDArray[np.generic]:
    """As an array; halves, which HDF5 readers may not know, become float32."""
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).contiguous().numpy()
