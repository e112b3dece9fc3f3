"""Module buffers, such as the running statistics of batch norm, which no gradient keeps equal."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from hpc_train.comm import Comm


class BufferSnapshot:
    """The buffers of a model before a batch: one that fails or is skipped must not change them.

    A loss that is not finite comes with running statistics that are not, for ever.
    """

    def __init__(self, model: nn.Module) -> None:
        # walking through the modules takes long; each keeps its dictionary for life
        self._modules = [(prefix, module._buffers) for prefix, module in model.named_modules()]
        self._held: dict[str, torch.Tensor] = {}

    def take(self) -> None:
        """Remember all buffers."""
        self._held = {name: buffer.clone() for name, buffer in self._buffers()}

    def restore(self) -> None:
        """Set all buffers to what they were at the last `take`."""
        for name, buffer in self._buffers():
            if name in self._held and self._held[name].shape == buffer.shape:
                buffer.copy_(self._held[name])

    def _buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The buffers as they are now, by name."""
        for prefix, held in self._modules:
            if held:
                for name, buffer in held.items():
                    if buffer is not None:
                        yield f"{prefix}.{name}", buffer


def merge_buffers(model: nn.Module, comm: Comm, samples: int) -> None:
    """Give every rank the mean of all ranks' floating-point buffers, weighted by their samples.

    Other buffers (counters) are taken from the lowest rank that had samples. Without samples on
    any rank nothing changes.

    Args:
        model: whose buffers are changed in place.
        comm: the ranks.
        samples: what this rank trained on since the last merge.
    """
    buffers = [buffer for _, buffer in model.named_buffers()]
    shares = [int(share) for share in comm.gather(samples)] if buffers else []
    if comm.world.size == 1 or sum(shares) == 0:
        return
    floating = [b for b in buffers if b.is_floating_point()]
    if floating:
        flat = torch.cat([b.detach().double().reshape(-1).cpu() for b in floating]).numpy()
        mean = comm.sum(flat * samples if samples else np.zeros_like(flat)) / sum(shares)
        parts = torch.split(torch.from_numpy(mean), [b.numel() for b in floating])
        for buffer, part in zip(floating, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
    source = next(rank for rank, share in enumerate(shares) if share)
    for buffer in buffers:
        if not buffer.is_floating_point():
            host = buffer.detach().cpu().contiguous()
            comm.spread(host.reshape(-1).numpy(), source)
            buffer.copy_(host)
