"""A training loop of plain torch, at its best: data in memory, converted before the clock starts.

Model, initial weights, order of samples, shares and optimizer are those of our own side.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from hpc_train.bench.scaling.workload import Job, sections
from hpc_train.comm import Comm
from hpc_train.config import Config, load
from hpc_train.data import Dataset, Loader, make_order
from hpc_train.optim import make_optimizer
from hpc_train.optim.optimizers import Settings
from hpc_train.plan import Batch, Work
from hpc_train.train.datasets import open_datasets
from hpc_train.train.network import make_model
from hpc_train.train.sampling import training_order
from hpc_train.train.survey import Survey, needed_fields, survey


@dataclass(frozen=True)
class Prepared:
    """All that a rank needs, before the first step.

    Attributes:
        model: with its initial weights.
        images, labels: the whole data set, shapes (samples, *image) and (samples,).
        shares: per step, the sample ids of this rank, shape (share,).
        batch_size: samples of a global batch, all ranks together.
        settings: of the optimizer.
    """

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    shares: list[torch.Tensor]
    batch_size: int
    settings: Settings


def prepare(job: Job, comm: Comm) -> Prepared:
    """Read the data, make the model, and look up the samples of every step."""
    torch.set_num_threads(job.threads)
    config = load(None, sections=sections(job)).config
    datasets = open_datasets(config, comm)
    plan = survey(config, datasets, comm.world.size)
    images, labels = _whole(config, datasets["train"])
    return Prepared(
        model=make_model(config, plan),
        images=images,
        labels=labels,
        shares=_shares(config, datasets["train"], plan, comm.world.rank),
        batch_size=job.batch_size,
        settings=Settings(lr=config.optimizer.lr, momentum=config.optimizer.momentum),
    )


def _whole(config: Config, dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """All images, scaled to [0, 1], and their labels."""
    order = make_order("none", dataset.blocks(), 0, 1)
    everything = Work(Batch(0, 0, 0, dataset.num_samples), 0, dataset.num_samples)
    with Loader(dataset, order, needed_fields(config)) as loader:
        arrays = loader.read(everything).arrays
    images = torch.from_numpy(arrays["image"]).to(torch.float32) * (1 / 255)
    return images, torch.from_numpy(arrays["label"]).to(torch.int64)


def _shares(config: Config, dataset: Dataset, plan: Survey, rank: int) -> list[torch.Tensor]:
    """The sample ids that this rank gets in each step."""
    order = training_order(config, dataset, plan.window)
    works = [plan.plan.work(b, rank) for b in plan.course.batches(0, plan.num_batches)]
    return [torch.from_numpy(order.ids(w.batch)[w.start : w.stop]) for w in works]


def train(
    job: Job,
    prepared: Prepared,
    model: nn.Module,
    scale: float,
    quiet: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> tuple[list[float], list[float]]:
    """Train all steps; gives the seconds of those that count, and this rank's sums of losses.

    Args:
        job: the measurement.
        prepared: what `prepare` gave.
        model: `prepared.model`, or what wraps it.
        scale: factor on the sum of losses, whose gradients are accumulated.
        quiet: around every micro-batch but the last, after which gradients are exchanged.
    """
    optimizer = make_optimizer("sgd", list(model.parameters()), prepared.settings)
    model.train()
    seconds, losses = [], []
    before = time.perf_counter()
    for ids in prepared.shares:
        optimizer.zero_grad()
        parts = torch.split(ids, job.micro_batch_size)
        total = 0.0
        for number, part in enumerate(parts):
            with nullcontext() if number == len(parts) - 1 else quiet():
                scores = model(prepared.images[part])
                loss = functional.cross_entropy(scores, prepared.labels[part], reduction="sum")
                (loss * scale).backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        optimizer.step()
        now = time.perf_counter()
        seconds.append(now - before)
        losses.append(total)
        before = now
    return seconds[-job.steps :], losses
