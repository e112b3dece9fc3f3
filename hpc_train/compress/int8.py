"""Networks of 8-bit integers, by torch's own kernels: after training, static or dynamic.

    static     weights and activations are int8; ranges come from samples, or from training
    dynamic    weights of linear layers are int8; activations are rounded as they come

torch's FX mode is what has kernels for CPUs without a compiler at run time: those of torchao come
through torch.compile.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from hpc_train.errors import UsageError

Range = tuple[float, float]


def static(
    model: nn.Module, samples: Iterable[torch.Tensor], ranges: Mapping[str, Range] | None = None
) -> nn.Module:
    """An int8 copy of a network: convolutions, norms folded into them, linear layers.

    Args:
        model: on the CPU, in float32.
        samples: inputs to find the ranges of activations with, each of shape (n, ...).
        ranges: of the inputs of layers, by their names, where training found them.

    Raises:
        UsageError: if torch.fx cannot trace the model, or there are no samples.
    """
    batches = list(samples)
    if not batches:
        raise UsageError("static quantisation needs samples", where="compress")
    with _quiet():
        from torch.ao.quantization import quantize_fx

        model = copy.deepcopy(model).eval()
        try:
            prepared = quantize_fx.prepare_fx(model, _mapping(), (batches[0],))
        except Exception as error:
            raise UsageError(
                f"torch.fx cannot trace the model ({str(error).splitlines()[0]})",
                where="compress",
                hint="quantize dynamic needs no tracing",
            ) from error
        _reshape(prepared)
        with torch.no_grad():
            for inputs in batches:
                prepared(inputs)
        impose(prepared, ranges or {})
        return cast(nn.Module, quantize_fx.convert_fx(prepared))


def _reshape(prepared: Any) -> None:
    """Let `view` be `reshape`: int8 convolutions give tensors whose channels lie last."""
    for node in prepared.graph.nodes:
        if node.op == "call_method" and node.target == "view":
            node.target = "reshape"
    prepared.recompile()


def impose(prepared: Any, ranges: Mapping[str, Range]) -> None:
    """Let observers in front of layers say what `ranges` does."""
    for node in prepared.graph.nodes:
        if node.op == "call_module" and node.target in ranges:
            for observer in _observers_before(prepared, node):
                low, high = ranges[node.target]
                observer.reset_min_max_vals()
                observer.min_val = torch.tensor(low)
                observer.max_val = torch.tensor(high)


def _observers_before(prepared: Any, node: Any) -> Iterator[Any]:
    """Those of a layer's input, also before what passes it on unchanged."""
    source = node.args[0] if node.args else None
    if source is None or source.op != "call_module":
        return
    module = prepared.get_submodule(source.target)
    if "activation_post_process" in source.target:
        yield module
        yield from _observers_before(prepared, source)
    elif isinstance(module, (nn.modules.dropout._DropoutNd, nn.Identity)):
        yield from _observers_before(prepared, source)


def dynamic(model: nn.Module) -> nn.Module:
    """A copy of a network whose linear layers have int8 weights.

    Args:
        model: on the CPU, in float32.

    Raises:
        UsageError: if it has no linear layers.
    """
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise UsageError(
            "dynamic quantisation needs linear layers, the model has none",
            where="compress",
            hint="quantize static takes convolutions, too",
        )
    with _quiet():
        from torch.ao.quantization import quantize_dynamic

        _choose_engine()
        copied = copy.deepcopy(model).eval()
        quantize = cast(Callable[..., nn.Module], quantize_dynamic)
        return quantize(copied, {nn.Linear}, dtype=torch.qint8)


def _mapping() -> Any:
    """Which numbers stand for which: as `fake_quantize` rounds them."""
    from torch.ao.quantization import MinMaxObserver, QConfig, QConfigMapping
    from torch.ao.quantization.observer import PerChannelMinMaxObserver

    _choose_engine()
    activation = MinMaxObserver.with_args(dtype=torch.quint8, quant_min=0, quant_max=127)
    weight = PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, quant_min=-128, quant_max=127, qscheme=torch.per_channel_symmetric
    )
    qconfig = cast(Any, QConfig)(activation=activation, weight=weight)
    return QConfigMapping().set_global(qconfig)


def _choose_engine() -> None:
    known = torch.backends.quantized.supported_engines
    torch.backends.quantized.engine = "x86" if "x86" in known else "qnnpack"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's notes on its plans for the module, and on what observers have not seen."""
    logger = logging.getLogger("torch.ao")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


METHODS: dict[str, str] = {
    "none": "weights stay as they are",
    "dynamic": "int8 weights of linear layers, activations rounded as they come",
    "static": "int8 weights and activations",
}
