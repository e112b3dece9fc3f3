"""Launching: find the MPI launcher that fits, start ranks with it, and stay until all have ended.

Nothing here starts MPI in this process.
"""

from __future__ import annotations

from hpc_train.launch.environment import Launched, Problem, separate_worlds, under_launcher
from hpc_train.launch.library import Probe, probe
from hpc_train.launch.mpirun import find
from hpc_train.launch.start import launching, start_ranks
from hpc_train.launch.supervise import run_ranks

__all__ = [
    "Launched",
    "Probe",
    "Problem",
    "find",
    "launching",
    "probe",
    "run_ranks",
    "separate_worlds",
    "start_ranks",
    "under_launcher",
]
