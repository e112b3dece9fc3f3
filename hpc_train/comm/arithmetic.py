"""Adding and copying pieces of flat buffers, with as little overhead per call as there is.

NumPy starts an operation in half the time of torch, but has no bfloat16: so a *field* is a NumPy
array where NumPy knows the type, else a tensor. Both can be sliced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

# what can be sliced, added and copied: an array or a tensor of shape (n,)
Field = Any

IN_NUMPY = (torch.float32, torch.float64)
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def field(tensor: torch.Tensor) -> Field:
    """`tensor`, shape (n,) on the CPU, as what `add_for` and `copy_for` take; same memory."""
    flat = tensor.detach()
    return flat.numpy() if flat.dtype in IN_NUMPY else flat


def raw(tensor: torch.Tensor) -> NDArray[np.uint8]:
    """The bytes of a contiguous tensor on the CPU; same memory."""
    found: NDArray[np.uint8] = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return found


def add_for(dtype: torch.dtype) -> Callable[[Field, Field, Field], Any]:
    """The function that sets its third field to the sum of the first two; it may be one of them."""
    if dtype in IN_NUMPY:
        return np.add
    return lambda one, other, out: torch.add(one, other, out=out)


def scale_for(dtype: torch.dtype) -> Callable[[Field, float, Field], Any]:
    """The function that sets its third field to the first one times a number."""
    if dtype in IN_NUMPY:
        return np.multiply
    return lambda one, factor, out: torch.mul(one, factor, out=out)


def copy_for(dtype: torch.dtype) -> Callable[[Field, Field], Any]:
    """The function that copies its second field over its first."""
    return np.copyto if dtype in IN_NUMPY else lambda to, source: to.copy_(source)
