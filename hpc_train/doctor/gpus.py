"""GPUs: which of them each rank computes on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from hpc_train.doctor.check import OK, WARN, Check, Facts, Report, Request, listed
from hpc_train.train.device import gpu_number, visible_gpus
from hpc_train.world import World

_DRIVER = Path("/proc/driver/nvidia/gpus")


def facts(request: Request) -> Facts:
    """The GPUs that torch sees, and those that the driver knows."""
    gpus = visible_gpus()
    return {
        "gpus": gpus,
        "names": [torch.cuda.get_device_name(i) for i in range(len(gpus))],
        "driver": len(list(_DRIVER.iterdir())) if _DRIVER.is_dir() else 0,
        "torch_cuda": torch.version.cuda or torch.version.hip,
    }


def checks(report: Report) -> list[Check]:
    """One GPU for every rank, or none for anyone."""
    found = report.of("gpus")
    seen = [fact["gpus"] for fact in found]
    without = [rank for rank, gpus in enumerate(seen) if not gpus]
    if len(without) == len(seen):
        return [_none(found[0])]
    if without:
        text = f"{listed(without)} of {report.world.size} see none and would use the CPU"
        return [Check("GPUs", WARN, text, "ask for a GPU per rank (sbatch --gpus-per-node)")]
    shared = [uuid for uuid, users in _users(report.world, seen).items() if users > 1]
    if shared:
        text = f"{len(shared)} of them used by more than one rank"
        return [Check("GPUs", WARN, text, "start as many ranks per node as it has GPUs")]
    names = sorted({name for fact in found for name in fact["names"]})
    return [Check("GPUs", OK, f"one per rank ({', '.join(names)})")]


def _none(mine: Facts) -> Check:
    """No rank sees a GPU: because there is none, or because torch cannot use it."""
    if not mine["driver"]:
        return Check("GPUs", OK, "none: training runs on the CPU")
    text = f"the driver knows {mine['driver']}, torch sees none"
    if mine["torch_cuda"] is None:
        return Check("GPUs", WARN, text, "this torch is built for the CPU: install one for CUDA")
    return Check("GPUs", WARN, text, "look at CUDA_VISIBLE_DEVICES and the driver's version")


def _users(world: World, seen: list[list[str]]) -> Counter[str]:
    """How many ranks would compute on each GPU, by UUID."""
    users: Counter[str] = Counter()
    for rank in range(world.size):
        number = gpu_number(World(rank, world.nodes, world.mesh), seen)
        if number is not None:
            users[seen[rank][number]] += 1
    return users
