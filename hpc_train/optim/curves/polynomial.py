"""A polynomial to the end of the run."""

from __future__ import annotations

from hpc_train.optim.curves.shape import Shape


def polynomial(batch: int, shape: Shape) -> float:
    """From 1 down to `final`, as (1 - progress)^power (torch's PolynomialLR; 1: LinearLR)."""
    left = 1 - min(1.0, batch / shape.length)
    return shape.final + (1 - shape.final) * float(left**shape.power)
