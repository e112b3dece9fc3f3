"""torch's optimizers without its compiler, which they load: a second of CPU time on each rank.

Their methods are wrapped so that torch.compile leaves them alone, and what wraps them imports
torch._dynamo at the first call. Nobody compiles an optimizer here: its steps are fused kernels.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch


@functools.cache
def eager(kind: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The same optimizer, whose methods are those that torch wraps."""
    base: Any = kind
    step, add = inspect.unwrap(base.step), inspect.unwrap(base.add_param_group)

    class Eager(base):  # type: ignore[misc]
        """An optimizer that is never compiled."""

        def add_param_group(self, param_group: dict[str, Any]) -> None:
            """See torch.optim.Optimizer."""
            add(self, param_group)

        @torch.no_grad()
        def step(self, closure: None = None) -> None:
            """Update all parameters."""
            step(self, closure)

    Eager.__name__ = Eager.__qualname__ = kind.__name__
    return Eager
