"""One cycle."""

from __future__ import annotations

from hpc_train.optim.curves.cosine import between
from hpc_train.optim.curves.shape import Shape


def one_cycle(batch: int, shape: Shape) -> float:
    """Half a cosine up from `start` to 1, another down to `final` (torch's OneCycleLR).

    Smith and Topin, "Super-convergence: very fast training of neural networks using large learning
    rates", 2019; in the form of torch, with two phases.
    """
    last = shape.length - 1.0
    top = shape.peak * shape.length - 1.0
    if batch <= top:
        return between(shape.start, 1.0, batch / top if top else 1.0)
    if last <= top:
        return shape.final
    return between(1.0, shape.final, min(1.0, (batch - top) / (last - top)))
