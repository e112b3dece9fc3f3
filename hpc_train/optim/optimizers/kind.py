"""What every optimizer is told, and what is known of each kind of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Settings:
    """What an optimizer is told; each takes what it knows of it.

    Attributes:
        lr: learning rate, >= 0.
        momentum: of sgd, rmsprop and lars, in [0, 1).
        nesterov: whether sgd's momentum is Nesterov's.
        betas: decay of the two moments of adam, adamw and lamb, in [0, 1).
        eps: added to denominators, > 0; lars has none.
        weight_decay: L2 (sgd, adam, rmsprop, adagrad, lars) or decoupled (adamw, lamb), >= 0.
        alpha: decay of rmsprop's mean square, in [0, 1).
        centered: whether rmsprop subtracts the square of the mean.
        trust_coefficient: of lars, > 0.
    """

    lr: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    alpha: float = 0.99
    centered: bool = False
    trust_coefficient: float = 1e-3


# flat parameters, or torch's parameter groups of them
Parameters = Sequence[torch.nn.Parameter] | Sequence[dict[str, Any]]

# updates a part of the weights, shape (n,), in place: (weights, gradient, what the optimizer keeps
# of them, torch's group); "step" counts this update, and the gradient may be overwritten
Kernel = Callable[[torch.Tensor, torch.Tensor, Mapping[str, torch.Tensor], Mapping[str, Any]], None]


@dataclass(frozen=True)
class Kind:
    """One kind of optimizer.

    Attributes:
        make: builds it.
        state: the tensors that it keeps for each weight ("step": one number), always.
        options: those that it keeps besides, for given settings.
        others: all of these.
        kernel: makes the same update of any part of the weights; None if there is no such thing.
        by_layer: whether it needs the norm of each parameter, so that each must be one tensor;
            the others are element-wise, and make no difference where one weight ends.
    """

    make: Callable[[Parameters, Settings], torch.optim.Optimizer]
    state: frozenset[str]
    options: Callable[[Settings], frozenset[str]] = lambda settings: frozenset()
    others: frozenset[str] = frozenset()
    kernel: Kernel | None = None
    by_layer: bool = False

    @property
    def knows(self) -> frozenset[str]:
        """All tensors that it may keep for each weight."""
        return self.state | self.others

    def keeps(self, settings: Settings) -> frozenset[str]:
        """The tensors that it keeps for each weight with these settings."""
        return self.state | self.options(settings)


def momentum_buffer(settings: Settings) -> frozenset[str]:
    """What momentum keeps, where there is any."""
    return frozenset({"momentum_buffer"} if settings.momentum else ())
