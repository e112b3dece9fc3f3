"""Random bits keyed by sample: the same on any rank, in any micro-batch, on any device.

Philox4x32-10 as in `hpc_train.philox`, over tensors: key = (seed, what the bits are for), counter =
(place in the sample, low and high half of the sample's id, epoch).
"""

from __future__ import annotations

import math

import torch

from hpc_train import philox

_LOW = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57
_W0, _W1 = 0x9E3779B9, 0xBB67AE85


def words(seed: int, epoch: int, ids: torch.Tensor, count: int) -> torch.Tensor:
    """`count` random words of 32 bits for each sample.

    Args:
        seed: 63 bits that belong to a run and a purpose, see `philox.derive`.
        epoch: in [0, 2^32).
        ids: which samples, int64, shape (n,); the words lie on its device.
        count: words of each sample, in [0, 2^34).

    Returns:
        int64 in [0, 2^32), shape (n, count).
    """
    place = torch.arange(-(-count // 4), device=ids.device)[None, :]
    c0 = place.expand(len(ids), -1)
    c1, c2 = ((half[:, None]).expand_as(c0) for half in (ids & _LOW, ids >> 32))
    c3 = torch.full_like(c0, epoch)
    k0, k1 = philox.key_of(seed)
    for _ in range(10):
        # products wrap around as they do without a sign; the mask takes the copies of the sign away
        product0, product1 = c0 * _M0, c2 * _M1
        c0 = ((product1 >> 32) & _LOW) ^ c1 ^ k0
        c1 = product1 & _LOW
        c2 = ((product0 >> 32) & _LOW) ^ c3 ^ k1
        c3 = product0 & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return torch.stack((c0, c1, c2, c3), dim=-1).reshape(len(ids), -1)[:, :count]


def uniforms(seed: int, epoch: int, ids: torch.Tensor, count: int) -> torch.Tensor:
    """Numbers in [0, 1) for each sample, float64, shape (n, count); arguments as of `words`."""
    return words(seed, epoch, ids, count).double() / 2**32


def normals(
    seed: int, epoch: int, ids: torch.Tensor, count: int, dtype: torch.dtype
) -> torch.Tensor:
    """Standard normal numbers for each sample, shape (n, count); arguments as of `words`.

    Box and Muller, "A note on the generation of random normal deviates", 1958.
    """
    pairs = words(seed, epoch, ids, count + count % 2).view(len(ids), -1, 2)
    radius = (-2 * ((pairs[..., 0] + 1).to(dtype) / 2**32).log()).clamp(min=0).sqrt()
    angle = pairs[..., 1].to(dtype) * (2 * math.pi / 2**32)
    both = torch.stack((radius * angle.cos(), radius * angle.sin()), dim=-1)
    return both.reshape(len(ids), -1)[:, :count]
