"""The network of a run: built, reshaped as techniques ask, moved to its device, tried out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from hpc_train.config import Config
from hpc_train.config.schema.device import Device
from hpc_train.data import Dataset, Loader
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.models import MODELS
from hpc_train.plan import Work
from hpc_train.train.activations import checkpoint_activations
from hpc_train.train.compilation import compile_network
from hpc_train.train.feed import Feed
from hpc_train.train.memory_format import channels_last
from hpc_train.train.names import bind, find
from hpc_train.train.sampling import training_order
from hpc_train.train.seeds import seeded_weights
from hpc_train.train.survey import Survey, needed_fields
from hpc_train.train.techniques import (
    dropout,
    initialization,
    quantization,
    sync_batchnorm,
    transfer,
)

# name -> what it makes of a network before its arenas are built: other weights, layers, or
# requires_grad; the network itself where the configuration leaves it off; the same on all ranks
RESHAPES: dict[str, Callable[[Config, nn.Module], nn.Module]] = {
    "initialization": initialization.reshape,
    "transfer": transfer.reshape,
    "dropout": dropout.reshape,
    "sync_batchnorm": sync_batchnorm.reshape,
    "quantization": quantization.reshape,
}

_LOOKED_AT = 256  # most samples that LSUV looks at


def bind_model(config: Config, plan: Survey) -> Callable[[], Any]:
    """The builder of the network that the configuration names, with its arguments.

    Raises:
        ConfigError: if there is no such builder, or it does not take these arguments.
    """
    section = config.model
    offered: dict[str, object] = {"input_shape": plan.input_shape}
    if plan.num_outputs is not None:
        offered["num_classes"] = plan.num_outputs
    if plan.num_tokens is not None:
        offered["num_tokens"] = plan.num_tokens
    builder = find("model", section.name, MODELS)
    return partial(builder, **bind("model", builder, section.arguments, offered))


def make_model(config: Config, plan: Survey) -> nn.Module:
    """The network that the configuration names, with the weights that belong to its seed."""
    builder = bind_model(config, plan)
    with seeded_weights(config.run.seed):
        model = builder()
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f'a builder must return a torch.nn.Module ("{config.model.name}" returned '
            f"{type(model).__name__})",
            where="model.name",
        )
    return model


def reshaped(config: Config, model: nn.Module) -> nn.Module:
    """A network as the techniques of the configuration want its shape."""
    for reshape in RESHAPES.values():
        model = reshape(config, model)
    return model


def make_network(
    config: Config, plan: Survey, model: nn.Module | None, feed: Feed, train: Dataset
) -> nn.Module:
    """The network of a run, on its device and tried out; all that changes its shape comes here.

    Args:
        model: one of the caller's own, in place of what the configuration names.

    Raises:
        HpcTrainError: if it cannot be built, or cannot take the inputs.
    """
    if model is None:
        model = make_model(config, plan)
    model = reshaped(config, model)
    model = model.to(feed.device, feed.dtype)
    _try_out(model, feed, train)
    if config.initialization.name == "lsuv":
        initialization.look(model, _first_inputs(config, plan, feed, train))
    _equip(model, config.device, feed.device)
    return model


def _equip(model: nn.Module, section: Device, device: torch.device) -> None:
    """What changes how the network computes, and neither its names nor its results."""
    if section.channels_last:
        channels_last(model)
    if section.activation_checkpointing != "none":
        checkpoint_activations(model, section.activation_checkpointing)
    if section.compile:
        compile_network(model, device)


def _first_inputs(config: Config, plan: Survey, feed: Feed, train: Dataset) -> Any:
    """What the model gets of the first samples of the order, the same on all ranks."""
    order = training_order(config, train, plan.window)
    first = plan.course.batch(0)
    count = min(first.size, _LOOKED_AT)
    with Loader(train, order, needed_fields(config)) as loader:
        inputs = feed.batch(loader.read(Work(first, 0, count)), 0, count).inputs
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs


def _try_out(model: nn.Module, feed: Feed, train: Dataset) -> None:
    """Run the model on one sample of zeros, so that shapes that do not fit are found at once."""
    inputs = {}
    for name in feed.inputs:
        info = train.fields[name]
        zeros = torch.zeros((1, *info.shape), dtype=feed.dtype, device=feed.device)
        inputs[name] = zeros if feed.is_number(name, info.dtype) else zeros.long()
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(next(iter(inputs.values())) if len(inputs) == 1 else inputs)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        shapes = ", ".join(f"{n} {tuple(t.shape[1:])} {t.dtype}" for n, t in inputs.items())
        raise HpcTrainError(
            f"the model cannot take the inputs ({shapes}): {str(error).splitlines()[0]}",
            where="model.name",
            hint="check data.inputs, data.scale, and the model's arguments",
        ) from error
    finally:
        model.train(was_training)
