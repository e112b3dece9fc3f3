"""What a network has made of its inputs before its last layer: embeddings of samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hpc_train.errors import ConfigError, unknown
from hpc_train.tasks import TensorBatch


class Features:
    """Gives embeddings: codes of an autoencoder, or what a layer gives or takes.

    Args:
        model: a network, in evaluation mode.
        layer: the name of the module whose output is wanted; None for what the model's `encode`
            gives, and without one for the input of the last layer that has weights.

    Raises:
        ConfigError: if there is no such module.
    """

    def __init__(self, model: nn.Module, layer: str | None) -> None:
        self._model, self._layer = model, layer
        modules = {name: module for name, module in model.named_modules() if name}
        if layer is not None and layer not in modules:
            raise ConfigError(unknown("layer", layer, modules), where="--layer")
        self._modules = modules
        self._seen: dict[str, torch.Tensor] = {}

    def __call__(self, batch: TensorBatch) -> dict[str, torch.Tensor]:
        """The embeddings of a batch as `feature`, shape (n, ...)."""
        encode = getattr(self._model, "encode", None)
        if self._layer is None and callable(encode):
            inputs = dict(batch.inputs)
            only = next(iter(inputs.values())) if len(inputs) == 1 else inputs
            return {"feature": _checked(encode(only), len(batch), "encode")}
        self._seen.clear()
        hooks = [self._watch(name, module) for name, module in self._watched().items()]
        try:
            batch.through(self._model)
        finally:
            for hook in hooks:
                hook.remove()
        if not self._seen:
            raise ConfigError(f"the model never ran layer {self._layer}", where="--layer")
        if self._layer is None and len(self._seen) < 2:
            raise ConfigError(
                "the network has no hidden layer", where="--layer", hint="name one of its modules"
            )
        name = list(self._seen)[-1]
        return {"feature": _checked(self._seen[name], len(batch), name)}

    def _watched(self) -> dict[str, nn.Module]:
        """The module that is asked for, or all that have weights of their own."""
        if self._layer is not None:
            return {self._layer: self._modules[self._layer]}
        return {n: m for n, m in self._modules.items() if any(True for _ in m.parameters(False))}

    def _watch(self, name: str, module: nn.Module) -> Any:
        """Note what the module gives, or what it takes where the last one is wanted."""

        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            self._seen.pop(name, None)  # the last to run comes last
            found = output if self._layer is not None else inputs[0] if inputs else None
            if isinstance(found, torch.Tensor):
                self._seen[name] = found

        return module.register_forward_hook(note)


def _checked(tensor: Any, size: int, name: str) -> torch.Tensor:
    """An embedding of each of `size` samples.

    Raises:
        ConfigError: if it is something else.
    """
    if not isinstance(tensor, torch.Tensor) or tensor.dim() == 0 or len(tensor) != size:
        what = tuple(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise ConfigError(
            f"a layer must give a tensor with one row per sample ({name}: {what})",
            where="--layer",
            hint="name another one",
        )
    return tensor
