"""Whether a dataset can be read fast, judged from how it is stored; pure.

Reading goes by blocks: whole chunk layers. What costs: a layer that does not fit memory, one sample
spread over many chunks, thousands of tiny chunks, and decompression.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod

from hpc_train.data.hdf5 import LAYER_BYTES, Stored

_TINY_BYTES = 16 * 2**10
_FEW = 64  # chunks: so few may be tiny


@dataclass(frozen=True)
class Advice:
    """A judgement: whether reading is fast, and why."""

    is_fast: bool
    reason: str


def advise(stored: Stored) -> Advice:
    """The judgement on one dataset, of numbers, with a first axis."""
    if stored.chunks is None:
        return Advice(True, "contiguous: rows lie one after the other")
    layer_rows = min(stored.chunks[0], max(1, stored.shape[0]))
    layer_bytes = layer_rows * stored.sample_bytes
    chunk_bytes = (
        prod(stored.chunks) * max(1, stored.sample_bytes) // max(1, prod(stored.shape[1:]))
    )
    cuts = prod(ceil(n / c) for n, c in zip(stored.shape[1:], stored.chunks[1:], strict=True))
    layers = ceil(stored.shape[0] / stored.chunks[0])
    if layer_bytes > LAYER_BYTES:
        return Advice(
            False,
            f"{layer_rows:,} samples ({layer_bytes / 2**20:,.0f} MiB) must be read together "
            f"to use one of them",
        )
    if cuts > 1:
        return Advice(False, f"one sample lies in {cuts:,} chunks, each found and copied apart")
    if chunk_bytes < _TINY_BYTES and layers > _FEW:
        return Advice(
            False,
            f"{layers:,} chunks of {chunk_bytes:,} bytes: finding them costs more than reading",
        )
    if stored.compression:
        return Advice(
            False,
            f"{stored.compression}: decompressing takes several times as long as reading "
            f"(gzip and lzf: about 15 ms per MiB)",
        )
    return Advice(True, f"whole samples per chunk, {layer_rows:,} of them")
