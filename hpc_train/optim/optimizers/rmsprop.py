"""RMSprop."""

from __future__ import annotations

import torch

from hpc_train.optim.optimizers.kind import Kind, Parameters, Settings, momentum_buffer


def rmsprop(parameters: Parameters, settings: Settings) -> torch.optim.Optimizer:
    """Gradients over their root mean square, with momentum and L2 weight decay.

    Tieleman and Hinton, "Neural networks for machine learning", lecture 6.5, 2012; centred as in
    Graves, "Generating sequences with recurrent neural networks", 2013.
    """
    return torch.optim.RMSprop(
        parameters,
        lr=settings.lr,
        alpha=settings.alpha,
        eps=settings.eps,
        momentum=settings.momentum,
        centered=settings.centered,
        weight_decay=settings.weight_decay,
    )


def _options(settings: Settings) -> frozenset[str]:
    mean = frozenset({"grad_avg"} if settings.centered else ())
    return momentum_buffer(settings) | mean


RMSPROP = Kind(
    rmsprop,
    frozenset({"step", "square_avg"}),
    _options,
    frozenset({"momentum_buffer", "grad_avg"}),
)
