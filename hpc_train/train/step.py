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
    """Add the gradients of the sum of weight x loss over this rank's samples; what they add up to.

    Where ranks claim samples, these follow piece by piece, as long as there are any.
    """
    sums, number, claims = Sums(), work.batch.number, parts.strategy.claims
    own = (0, len(samples.ids) if claims is None else work.size)
    with phase("compute", batch=number, samples=_at_once(parts, own)):
        _add(parts, task, samples, work, sums, own)
        if claims is None:
            tally = sums.tally()
            tally.digest, tally.skipped = samples.digest, samples.skipped
            return tally
        _wait(parts.device)
    done = [own]
    for piece in claims.pieces(work):
        with phase("compute", batch=number, samples=_at_once(parts, piece)):
            _add(parts, task, samples, work, sums, piece)
            _wait(parts.device)
        done.append(piece)
    with phase("compute", batch=number):
        tally = sums.tally()
        tally.digest, tally.skipped = samples.digest_of(done), samples.skipped
        return tally


def _add(
    parts: Parts, task: Phase, samples: Samples, work: Work, sums: Sums, piece: tuple[int, int]
) -> None:
    """Add what some of the samples give to the gradients and the sums."""
    seed, claims = parts.config.run.seed, parts.strategy.claims
    factor = parts.techniques.loss_factor(task.name)

    def act(batch: TensorBatch) -> dict[str, torch.Tensor]:
        """Forward and backward, and nothing else: it may be recorded and played back."""
        with parts.feed.autocast(), lone_sample(parts.model, len(batch)):
            losses = losses_of(task, parts.model, batch)
        found = totals(losses, len(batch))
        total = found["loss"] if factor == 1 else found["loss"] * factor
        total.backward()  # type: ignore[no-untyped-call]
        return {name: value.detach() for name, value in found.items()}

    everyone = parts.techniques.needs_everyone
    for start, plain in parts.feed.parts(samples, work.batch.epoch, piece, at_least_one=everyone):
        seed_micro_batch(seed, work.batch.epoch, work.batch.number, work.place(start), parts.device)
        batch = parts.techniques.transform(plain, work)
        if claims is not None:
            claims.attend()
        # others may still change gradients after the last pass; then all of it waits for them
        elif start + len(batch) >= piece[1] and not parts.techniques.change_gradients:
            parts.strategy.release(task.name)
        found = act(batch) if parts.graphs is None else parts.graphs.run(task.name, batch, act)
        sums.add(found, len(batch))


def _at_once(parts: Parts, piece: tuple[int, int]) -> int:
    """How many samples of a piece are on the device at once."""
    count = piece[1] - piece[0]
    return min(parts.feed.micro_batch_size or count, count)


def _wait(device: torch.device) -> None:
    """Return when the device is through with what it was told: only then is this rank free."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
