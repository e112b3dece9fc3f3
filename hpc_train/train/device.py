"""Which device a rank computes on, and with how many threads."""

from __future__ import annotations

import logging
import os
import resource
import sys
from collections import Counter
from collections.abc import Sequence

import torch

from hpc_train.config import Config
from hpc_train.cores import usable_cores
from hpc_train.errors import SetupError
from hpc_train.world import Group, World

logger = logging.getLogger(__name__)

_RUSAGE_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of getrusage


def visible_gpus() -> list[str]:
    """The UUIDs of the GPUs that this process sees, in the order of their numbers."""
    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(i).uuid) for i in range(torch.cuda.device_count())]


def gpu_number(world: World, gpus: Sequence[Sequence[str]]) -> int | None:
    """The number of this rank's GPU among those that it sees; None if it sees none.

    A rank's GPU is its position among the ranks of its node that see the same set of devices: so
    it is right when all ranks see all GPUs of a node, and when each sees only its own. With more
    ranks than GPUs, ranks share them in turn.

    Args:
        world: the ranks and their nodes.
        gpus: the UUIDs that each rank sees, by rank.
    """
    mine = gpus[world.rank]
    if not mine:
        return None
    peers = [r for r in world.local_ranks if set(gpus[r]) == set(mine)]
    return peers.index(world.rank) % len(mine)


def choose_device(name: str, group: Group) -> torch.device:
    """This rank's device.

    Args:
        name: "cpu", "cuda", or "auto" for the rank's GPU where there is one.
        group: the ranks, which tell each other what they see.

    Raises:
        SetupError: if GPUs are asked for and this rank sees none.
    """
    gpus = group.gather(visible_gpus() if name != "cpu" else [])
    number = gpu_number(group.world, gpus)
    if number is None:
        if name == "cuda":
            raise SetupError(
                "device.name is cuda, and no GPU can be seen",
                hint="ask for GPUs (sbatch --gpus-per-node), or set device.name=auto",
            )
        return torch.device("cpu")
    device = torch.device("cuda", number)
    torch.cuda.set_device(device)
    return device


def threads_of(rank: int, local_ranks: Sequence[int], cores: Sequence[Sequence[int]]) -> int:
    """Threads for a rank: its part of the cores that it may run on, at least 1.

    A core that k ranks of the node share counts 1/k for each of them.

    Args:
        rank: the rank.
        local_ranks: the ranks of its node.
        cores: the cores that each rank may run on, by rank.
    """
    sharers = Counter(core for r in local_ranks for core in cores[r])
    return max(1, int(sum(1 / sharers[core] for core in cores[rank]) + 1e-9))


def ready_device(config: Config, group: Group) -> torch.device:
    """This rank's device, with all that torch must be told of it beforehand.

    Raises:
        SetupError: if GPUs are asked for and this rank sees none.
    """
    tell_allocator(config.device.cuda_allocator)
    device = choose_device(config.device.name, group)
    limit_gpu_memory(config.device.memory_fraction, device)
    set_tf32(config.precision.tf32)
    return device


def take_device(config: Config, name: str) -> torch.device:
    """The device `name` of a rank that this one replaces, with all that torch must be told."""
    tell_allocator(config.device.cuda_allocator)
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    limit_gpu_memory(config.device.memory_fraction, device)
    set_tf32(config.precision.tf32)
    return device


def limit_gpu_memory(fraction: float | None, device: torch.device) -> None:
    """Let this process have a part of its GPU's memory, in (0, 1]; None for all of it."""
    if fraction is None:
        return
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(fraction, device)
    else:
        logger.warning("device.memory_fraction is for GPUs, and has no effect on the CPU")


def tell_allocator(settings: str | None) -> None:
    """Tell torch's allocator of GPU memory, which reads its settings when it is first asked."""
    if settings is not None:
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = settings


def peak_bytes(device: torch.device) -> int:
    """The most memory so far: what torch had of the GPU, or of the whole process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RUSAGE_BYTES


def set_tf32(allowed: bool | None) -> None:
    """Let GPUs round the factors of float32 products to 10 bits, or not; None: as torch has it."""
    if allowed is not None:
        torch.backends.cuda.matmul.allow_tf32 = allowed
        torch.backends.cudnn.allow_tf32 = allowed


def set_threads(threads: int | str, group: Group, reserve: int = 0) -> int:
    """Let torch use `threads` threads; gives how many it uses.

    Args:
        threads: "auto" follows OMP_NUM_THREADS, else the rank's part of the cores.
        group: the ranks.
        reserve: how many of its cores a rank leaves to other threads where "auto" counts them;
            one is left to torch in any case.
    """
    cores = group.gather(usable_cores())
    if isinstance(threads, str):
        told = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
        world = group.world
        mine = threads_of(world.rank, world.local_ranks, cores) - reserve
        threads = int(told) if told.isdigit() else mine
    torch.set_num_threads(max(1, threads))
    return torch.get_num_threads()
