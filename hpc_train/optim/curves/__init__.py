"""Curves of the learning rate: pure functions of the global batch, factors on the base rate."""

from __future__ import annotations

from collections.abc import Callable

from hpc_train.optim.curves.constant import constant
from hpc_train.optim.curves.cosine import cosine, cosine_restarts
from hpc_train.optim.curves.decay import exponential, inverse_time, step
from hpc_train.optim.curves.one_cycle import one_cycle
from hpc_train.optim.curves.polynomial import polynomial
from hpc_train.optim.curves.shape import Shape

__all__ = ["CURVES", "Shape"]

# name -> factor at a global batch, counted from the end of the warm-up
CURVES: dict[str, Callable[[int, Shape], float]] = {
    "constant": constant,
    "step": step,
    "exponential": exponential,
    "inverse_time": inverse_time,
    "polynomial": polynomial,
    "cosine": cosine,
    "cosine_restarts": cosine_restarts,
    "one_cycle": one_cycle,
    "plateau": constant,  # what lowers it is told of evaluations: a technique
}
