"""Module buffers, such as the running statistics of batch norm, which no gradient keeps equal."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hpc_train.comm import Comm


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
        for buffer, part in zip(
            floating, torch.from_numpy(mean).split([b.numel() for b in floating]), strict=True
        ):
            buffer.copy_(part.view_as(buffer))
    source = next(rank for rank, share in enumerate(shares) if share)
    for buffer in buffers:
        if not buffer.is_floating_point():
            host = buffer.detach().cpu().contiguous()
            comm.spread(host.reshape(-1).numpy(), source)
            buffer.copy_(host)
