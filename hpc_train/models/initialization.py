"""First weights of linear and convolutional layers: torch.nn.init, and LSUV."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import init

from hpc_train.errors import ConfigError, unknown

Weighted = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
Initializer = Callable[[torch.Tensor, str, float], object]  # weights, nonlinearity, std


def _gain(nonlinearity: str) -> float:
    return float(init.calculate_gain(nonlinearity))  # type: ignore[arg-type]


# name -> what it does to the weights of a layer
INITIALIZERS: dict[str, Initializer] = {
    # Glorot and Bengio, AISTATS 2010
    "xavier_uniform": lambda w, f, _: init.xavier_uniform_(w, _gain(f)),
    "xavier_normal": lambda w, f, _: init.xavier_normal_(w, _gain(f)),
    # He et al., ICCV 2015
    "kaiming_uniform": lambda w, f, _: init.kaiming_uniform_(w, nonlinearity=f),  # type: ignore[arg-type]
    "kaiming_normal": lambda w, f, _: init.kaiming_normal_(w, nonlinearity=f),  # type: ignore[arg-type]
    # Saxe, McClelland and Ganguli, ICLR 2014
    "orthogonal": lambda w, f, _: init.orthogonal_(w, _gain(f)),
    "truncated_normal": lambda w, _, std: init.trunc_normal_(w, std=std, a=-2 * std, b=2 * std),
    # begins orthogonal; `equalize` does the rest
    "lsuv": lambda w, f, _: init.orthogonal_(w),
}


def initialize(model: nn.Module, name: str, nonlinearity: str, std: float) -> None:
    """Draw the weights of all linear and convolutional layers anew; their biases become 0.

    Args:
        model: changed in place; other layers keep what they have.
        name: one of `INITIALIZERS`.
        nonlinearity: what follows the layers: linear, relu, tanh, selu or sigmoid.
        std: standard deviation of truncated_normal.

    Raises:
        ConfigError: if there is no such name, or the model has no such layers.
    """
    if name not in INITIALIZERS:
        raise ConfigError(unknown("initialization", name, INITIALIZERS))
    layers = [module for module in model.modules() if isinstance(module, Weighted)]
    if not layers:
        raise ConfigError(
            f"initialization needs linear or convolutional layers (initialization.name: {name})",
            where="initialization.name",
        )
    for layer in layers:
        INITIALIZERS[name](layer.weight, nonlinearity, std)
        if layer.bias is not None:
            init.zeros_(layer.bias)


def equalize(model: nn.Module, run: Callable[[], object], *, tolerance: float = 0.1) -> int:
    """Scale the layers, one after another, until their outputs have a variance of 1.

    Layer-sequential unit variance: Mishkin and Matas, "All you need is a good init", ICLR 2016,
    algorithm 1.

    Args:
        model: changed in place.
        run: puts a batch through the model.
        tolerance: how far from 1 a variance may be.

    Returns:
        How many layers were scaled.
    """
    layers: list[nn.Module] = []
    hooks = [
        module.register_forward_hook(lambda layer, _, out: layers.append(layer))
        for module in model.modules()
        if isinstance(module, Weighted)
    ]
    with torch.no_grad():
        run()
        for hook in hooks:
            hook.remove()
        order = list(dict.fromkeys(layers))  # as they are used
        for layer in order:
            _equalize_layer(layer, run, tolerance)
    return len(order)


def _equalize_layer(layer: nn.Module, run: Callable[[], object], tolerance: float) -> None:
    variances: list[float] = []
    hook = layer.register_forward_hook(
        lambda _, __, out: variances.append(float(out.double().var(correction=0)))
    )
    try:
        for _ in range(10):
            variances.clear()
            run()
            variance = variances[0]
            if abs(variance - 1) < tolerance or variance == 0:
                return
            assert isinstance(layer.weight, torch.Tensor)
            layer.weight /= variance**0.5
    finally:
        hook.remove()
