"""What a checkpoint holds of a run, and how a run takes it up again."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from hpc_train.checkpoint import Saved
from hpc_train.config import digest
from hpc_train.data import ORDER_VERSION
from hpc_train.errors import CheckpointError, ConfigError
from hpc_train.plan import Cursor
from hpc_train.strategies import Arena, assign
from hpc_train.train.build import Parts
from hpc_train.train.sampling import sampling_of
from hpc_train.train.weights import MODEL, TECHNIQUE, below

OPTIMIZER = "optimizer/"
STRATEGY = "strategy/"


def collect(parts: Parts) -> dict[str, torch.Tensor]:
    """All tensors of the run's state, by name; views, where possible."""
    tensors = {
        MODEL + name: tensor
        for name, tensor in parts.model.state_dict().items()
        if isinstance(tensor, torch.Tensor)
    }
    return tensors | beside(parts)


def beside(parts: Parts) -> dict[str, torch.Tensor]:
    """Those of the state that are no part of the model."""
    tensors = {
        f"{OPTIMIZER}{learner.name}/{name}": tensor
        for learner in parts.learners
        for name, tensor in learner.state().items()
    }
    for name, tensor in parts.techniques.tensors().items():
        tensors[TECHNIQUE + name] = tensor
    for name, tensor in parts.strategy.tensors().items():
        tensors[STRATEGY + name] = tensor
    return tensors


def notes(parts: Parts, cursor: Cursor, batch: int, step: int) -> dict[str, Any]:
    """What else belongs to the state, as JSON: no random state, since all of it is derived."""
    return {
        "cursor": {"epoch": cursor.epoch, "samples": cursor.samples},
        "batch": batch,
        "step": step,
        "order": order_of(parts),
        "batch_size": parts.config.data.batch_size,
        "shares": list(parts.strategy.plan.counts),
        "world": {"size": parts.comm.world.size, "nodes": list(parts.comm.world.nodes)},
        "config_digest": digest(parts.config),
        "techniques": parts.techniques.notes(),
    }


def order_of(parts: Parts) -> dict[str, Any]:
    """What the order of samples depends on."""
    data = parts.config.data
    return {
        "version": ORDER_VERSION,
        "shuffle": data.shuffle,
        "window": data.shuffle_window,
        "seed": parts.config.run.seed,
        "num_samples": parts.survey.course.num_samples,
        "sampling": sampling_of(parts.config, parts.loaders["train"].dataset),
    }


def restore(parts: Parts, saved: Saved) -> tuple[Cursor, int, int]:
    """Load the state of a checkpoint; gives cursor, batch and step to go on from.

    Raises:
        CheckpointError: if the tensors do not fit the model.
        ConfigError: if the order would change in the middle of an epoch.
    """
    told = saved.manifest.notes
    cursor = Cursor(told["cursor"]["epoch"], told["cursor"]["samples"])
    now = order_of(parts)
    changed = [key for key, value in now.items() if told["order"].get(key) != value]
    if cursor.samples and changed:
        raise ConfigError(
            "the order of samples must not change in the middle of an epoch ("
            + ", ".join(f"{key}: {told['order'].get(key)} -> {now[key]}" for key in changed)
            + ")",
            where=str(saved.path),
            hint="resume with the settings and data of the run itself",
        )
    adopt(parts, saved.tensors, told.get("techniques", {}), str(saved.path))
    return cursor, int(told["batch"]), int(told["step"])


def adopt(
    parts: Parts, tensors: Mapping[str, torch.Tensor], techniques: Mapping[str, Any], where: str
) -> None:
    """Let the run hold the state that `collect` gave elsewhere, and the notes of its techniques.

    Raises:
        CheckpointError: if the tensors, which come from `where`, do not fit the model.
    """
    arenas = [arena for learner in parts.learners for arena in learner.arenas]
    load_model(parts.model, below(MODEL, tensors), where, arenas)
    for learner in parts.learners:
        learner.load_state(below(f"{OPTIMIZER}{learner.name}/", tensors))
    parts.strategy.restore(below(STRATEGY, tensors))
    parts.techniques.restore(below(TECHNIQUE, tensors), techniques)


def share(parts: Parts, source: int) -> None:
    """Give all ranks the state of `source`: weights, optimizer, techniques; collective."""
    comm = parts.comm
    if comm.world.size == 1:
        return
    techniques = comm.broadcast(parts.techniques.notes(), source)
    tensors = spread(parts, source)
    if comm.world.rank != source:
        adopt(parts, tensors, techniques, f"rank {source}")


def catch_up(parts: Parts, source: int, techniques: Mapping[str, Any], *, behind: bool) -> None:
    """Give the ranks that are `behind` the state of `source`, and `techniques`; collective.

    Weights and optimizer state that all ranks have in common are those of `source` already.
    """
    shared = [arena for learner in parts.learners for arena in learner.arenas if arena.shared]
    own = collect(parts)
    common = {
        name
        for name, tensor in own.items()
        if shared and (name.startswith(OPTIMIZER) or any(one.holds(tensor) for one in shared))
    }
    tensors = spread(parts, source, common)
    if behind and not shared:
        adopt(parts, tensors, techniques, "another rank")
    elif behind:
        with torch.no_grad():
            for name in tensors.keys() & own.keys():
                if name.startswith(MODEL):
                    own[name].copy_(tensors[name])
        parts.strategy.restore(below(STRATEGY, tensors))
        parts.techniques.restore(below(TECHNIQUE, tensors), techniques)


def spread(parts: Parts, source: int, common: Container[str] = ()) -> dict[str, torch.Tensor]:
    """The tensors of the run's state on `source`, on the CPU, on every rank; all but `common`."""
    comm = parts.comm
    own = collect(parts) if comm.world.rank == source else {}
    own = {name: tensor for name, tensor in own.items() if name not in common}
    kinds = {name: [list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in own.items()}
    found = {}
    for name, (shape, dtype) in comm.broadcast(kinds, source).items():
        tensor = torch.empty(shape, dtype=getattr(torch, dtype))
        if name in own:
            tensor.copy_(own[name])
        flat: np.ndarray[Any, Any] = tensor.reshape(-1).view(torch.uint8).numpy()
        if flat.size:
            comm.spread(flat, source)
        found[name] = tensor
    return found


def load_model(
    model: nn.Module, found: Mapping[str, torch.Tensor], where: str, arenas: Sequence[Arena] = ()
) -> None:
    """Give a model weights and buffers by their names; `arenas` are where weights may lie.

    Raises:
        CheckpointError: if they, which come from `where`, do not fit it.
    """
    own = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    problems = [f"missing {name}" for name in own.keys() - found.keys()]
    problems += [f"unknown {name}" for name in found.keys() - own.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)}, the model {tuple(own[name].shape)}"
        for name in own.keys() & found.keys()
        if found[name].shape != own[name].shape
    ]
    if problems:
        raise CheckpointError(
            f"checkpoint does not fit the model: {', '.join(sorted(problems)[:5])}",
            where=where,
            hint="resume with the [model] that the run was started with",
        )
    assign(arenas, [(tensor, found[name]) for name, tensor in own.items()])
