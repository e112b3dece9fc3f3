"""From "this program, on so many ranks" to its exit status, with whatever launcher there is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from hpc_train.launch import mpirun, processes, supervise
from hpc_train.launch.machine import this_machine

# What ranks on other nodes must know as well, beside all HPC_TRAIN_*.
_FORWARDED = (
    "HDF5_USE_FILE_LOCKING",
    "NO_COLOR",
    "OMP_NUM_THREADS",
    "PYTHONPATH",
    "SLURM_JOB_END_TIME",
)


def start_job(
    program: Sequence[str],
    ranks: int,
    environ: Mapping[str, str] | None = None,
    *,
    fault_tolerant: bool = False,
    hosts: Mapping[str, int] | None = None,
) -> supervise.Ended:
    """Run `program` on `ranks` ranks of this machine or allocation until all have ended.

    Args:
        program: the command line of every rank.
        ranks: how many, >= 1.
        environ: the environment; this process's by default.
        fault_tolerant: whether the death of a rank shall leave the others alive, if this MPI can.
        hosts: most ranks of each node that may be used, by name; None for all of the allocation.

    Returns:
        How the launcher and its ranks ended.

    Raises:
        SetupError: if there is no MPI library, or no launcher that fits it.
    """
    environ = os.environ if environ is None else environ
    with launching(
        program,
        ranks,
        environ,
        forward=forwarded(environ),
        fault_tolerant=fault_tolerant,
        hosts=hosts,
    ) as call:
        return supervise.run_ranks(
            call.argv, call.environ, filter_stdout=call.launcher.vendor != "Open MPI"
        )


@dataclass(frozen=True)
class Call:
    """How ranks are started: a command line, its whole environment, and what starts them."""

    argv: list[str]
    environ: dict[str, str]
    launcher: mpirun.Launcher


@contextmanager
def launching(
    program: Sequence[str],
    ranks: int,
    environ: Mapping[str, str] | None = None,
    *,
    forward: Sequence[str] = (),
    fault_tolerant: bool = False,
    hosts: Mapping[str, int] | None = None,
) -> Iterator[Call]:
    """How to run `program` on ranks; the launcher's folder goes when the context ends.

    Args:
        program, ranks, environ, fault_tolerant, hosts: as `start_job`.
        forward: variables that ranks on other nodes need as well; none by default.

    Raises:
        SetupError: if there is no MPI library, or no launcher that fits it.
    """
    environ = os.environ if environ is None else environ
    launcher = mpirun.find(environ)
    argv, extra = mpirun.command(
        launcher,
        program,
        ranks=ranks,
        machine=this_machine(environ),
        forward=forward,
        fault_tolerant=fault_tolerant and mpirun.can_lose_ranks(launcher, environ),
        hosts=hosts,
    )
    with mpirun.session(launcher, environ) as own:
        yield Call(argv, {**extra, **own, **environ}, launcher)


def start_ranks(
    program: Sequence[str],
    ranks: int,
    environ: Mapping[str, str] | None = None,
    *,
    fault_tolerant: bool = False,
) -> int:
    """As `start_job`; gives what the launcher says, not to be believed alone."""
    return start_job(program, ranks, environ, fault_tolerant=fault_tolerant).code


def forwarded(environ: Mapping[str, str]) -> list[str]:
    """The variables that are handed to ranks on other nodes, sorted."""
    names = {name for name in environ if name.startswith("HPC_TRAIN_") or name in _FORWARDED}
    return sorted(names | {processes.JOB})
