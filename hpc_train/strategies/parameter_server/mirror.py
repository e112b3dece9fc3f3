"""The standby: rank 1 holds what is otherwise rank 0's alone, so that rank 0 may die.

    rank 0   update 7    8    9   10          dies
    rank 1   pushes ------- gets a range, and with it: weights, optimizer, position after 8
             takes its place: goes on after 8; 9 and 10, which nobody has any more, are done again

A mirror is whole or not there at all, and never newer than what is on record. So each batch counts
once in the weights and once on record, whenever rank 0 dies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray

from hpc_train.world import Json

STANDBY = 1


@dataclass(frozen=True)
class State:
    """What belongs to the weights of rank 0.

    Attributes:
        told: where the run is, as JSON.
        tensors: the state of optimizer and techniques, by name.
    """

    told: Json
    tensors: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Mirror:
    """What rank 0 was after some update.

    Attributes:
        weights: one flat tensor per arena, on the CPU.
        state: what belongs to them.
        done: batches that have their update though an earlier one has not.
        staleness: how many updates lacked how many others.
    """

    weights: Sequence[torch.Tensor]
    state: State
    done: Sequence[int]
    staleness: Counter[int]


def header(state: State, done: Sequence[int], staleness: Mapping[int, int]) -> Json:
    """What is told of a mirror before its arrays."""
    kinds = [
        [name, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for name, tensor in state.tensors.items()
    ]
    told = [[lacked, count] for lacked, count in staleness.items()]
    return {"told": state.told, "done": list(done), "staleness": told, "kinds": kinds}


def room(told: Json, before: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Memory for the arrays behind a header: that of an earlier mirror, where it fits."""
    found = {}
    for name, shape, dtype in told["kinds"]:
        old = before.get(name)
        kind = getattr(torch, dtype)
        fits = old is not None and list(old.shape) == shape and old.dtype == kind
        found[name] = old if old is not None and fits else torch.empty(shape, dtype=kind)
    return found


def mirror(
    told: Json, weights: Sequence[torch.Tensor], tensors: Mapping[str, torch.Tensor]
) -> Mirror:
    """The mirror of a header and the arrays behind it."""
    staleness = Counter(dict(told["staleness"]))
    return Mirror(weights, State(told["told"], tensors), told["done"], staleness)


def raw(tensors: Mapping[str, torch.Tensor]) -> list[NDArray[Any]]:
    """Tensors of any type as bytes, in their order; without a copy where they are on the CPU."""
    hosts = (tensor.detach().cpu().contiguous().reshape(-1) for tensor in tensors.values())
    return [host.view(torch.uint8).numpy() for host in hosts]
