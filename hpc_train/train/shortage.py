"""A micro-batch that does not fit into memory: halved on the rank that it befalls, and there alone.

    rank 0   forward backward | waits ........................ | sum
    rank 1   forward, no memory | halves | forward backward x2 | sum

The share stays, in more micro-batches, so the gradient is the same. The others wait as they wait
for any slow rank; what the rank now takes longer for its samples the scheduler sees like any other
change of speed.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import torch

from hpc_train.data import Samples
from hpc_train.errors import HpcTrainError
from hpc_train.plan import Work
from hpc_train.strategies import Learner, Tally
from hpc_train.tasks import Phase
from hpc_train.train.build import Parts
from hpc_train.train.feed import Feed
from hpc_train.train.step import compute

logger = logging.getLogger(__name__)

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_shortage(error: BaseException) -> bool:
    """Whether `error` says that there was no memory, on a device or for the CPU."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(word in text for word in _WORDS)


def halved(feed: Feed, samples: int) -> Feed | None:
    """The same feed with micro-batches half as large; None if they hold a single sample.

    Args:
        feed: how samples become micro-batches.
        samples: how many did not fit, all together.
    """
    size = min(feed.micro_batch_size or samples, samples)
    return replace(feed, micro_batch_size=-(-size // 2)) if size > 1 else None


def compute_in_memory(
    parts: Parts, task: Phase, learner: Learner, samples: Samples, work: Work
) -> Tally:
    """`compute`, with smaller and smaller micro-batches until they fit into memory.

    They stay so for the rest of the run.

    Raises:
        HpcTrainError: if a single sample does not fit; or a share, where the layers of all ranks
            meet inside the step, which cannot be repeated by one of them.
        Exception: whatever else `compute` raises.
    """
    while True:
        if parts.graphs is not None:  # what is recorded adds to where all gradients always lie
            learner.zero()
        try:
            return compute(parts, task, samples, work)
        except Exception as error:
            if not is_shortage(error):
                raise
            feed = halved(parts.feed, _largest(parts, samples, work))
            if feed is None or parts.techniques.needs_everyone:
                raise _refused(parts, work, error) from error
        # here the failed attempt's activations are gone
        parts.strategy.begin_again(learner)
        if parts.graphs is not None:
            parts.graphs.forget()
        if parts.device.type == "cuda":
            torch.cuda.empty_cache()
        parts.feed = feed
        logger.warning(
            "no memory for a micro-batch: from batch %d on it has %d samples at most",
            work.batch.number,
            feed.micro_batch_size,
        )


def _largest(parts: Parts, samples: Samples, work: Work) -> int:
    """Samples of the largest piece that is computed at once, if nothing else cuts it."""
    claims = parts.strategy.claims
    return len(samples.ids) if claims is None else max(work.size, claims.largest)


def _refused(parts: Parts, work: Work, error: Exception) -> HpcTrainError:
    """What is said where a micro-batch cannot be halved."""
    told = (str(error).splitlines() or [type(error).__name__])[0]
    if parts.techniques.needs_everyone:
        return HpcTrainError(
            "layers that meet inside a step need memory for a rank's whole share at once "
            f"(samples: {work.size}, batch: {work.batch.number}; {told})",
            where="model.sync_batchnorm",
            hint="lower data.batch_size, train on more ranks, or leave model.sync_batchnorm out",
        )
    return HpcTrainError(
        "there must be memory for forward and backward of a single sample "
        f"(samples: 1, batch: {work.batch.number}; {told})",
        where=f"device {parts.device}",
        hint='set device.activation_checkpointing = "auto" or precision.autocast = "bfloat16", '
        "or use a smaller model or a device with more memory",
    )
