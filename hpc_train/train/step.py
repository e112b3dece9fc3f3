"""One rank's part of a step: forward and backward over its micro-batches, and their sums."""

from __future__ import annotations

import torch

from hpc_train.data import Samples
from hpc_train.models.lone_samples import lone_sample
from hpc_train.plan import Work
from hpc_train.record import phase
from hpc_train.strategies import Tally
from hpc_train.tasks import Phase, TensorBatch
from hpc_train.tasks.mixing import losses_of
from hpc_train.train.build import Parts
from hpc_train.train.seeds import seed_micro_batch
from hpc_train.train.sums import Sums, totals


def compute(parts: Parts, task: Phase, samples: Samples, work: Work) -> Tally:
    """Add the gradients of the sum of weight x loss over `samples`; what they add up to."""
    sums, seed = Sums(), parts.config.run.seed
    factor = parts.techniques.loss_factor(task.name)

    def act(batch: TensorBatch) -> dict[str, torch.Tensor]:
        """Forward and backward, and nothing else: it may be recorded and played back."""
        with parts.feed.autocast(), lone_sample(parts.model, len(batch)):
            losses = losses_of(task, parts.model, batch)
        found = totals(losses, len(batch))
        total = found["loss"] if factor == 1 else found["loss"] * factor
        total.backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in found.items()}

    with phase("compute", batch=work.batch.number):
        everyone = parts.techniques.needs_everyone
        for start, plain in parts.feed.parts(samples, work.batch.epoch, at_least_one=everyone):
            seed_micro_batch(
                seed, work.batch.epoch, work.batch.number, work.start + start, parts.device
            )
            batch = parts.techniques.transform(plain, work)
            # others may still change gradients after the last pass; then all of it waits for them
            if start + len(batch) >= len(samples.ids) and not parts.techniques.change_gradients:
                parts.strategy.release(task.name)
            found = act(batch) if parts.graphs is None else parts.graphs.run(task.name, batch, act)
            sums.add(found, len(batch))
        return sums.tally()
