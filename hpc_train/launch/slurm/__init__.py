"""Slurm: the batch script of a run, and its jobs; nothing here loads MPI.

Only `scontrol`, `sbatch`, `squeue` and `scancel` are called, and their documented output is read.
"""

from __future__ import annotations

from hpc_train.launch.slurm.jobs import Submission, ask, cancel, read_submission, submit
from hpc_train.launch.slurm.script import Allocation, render, scaling, train
from hpc_train.launch.slurm.study import tune

__all__ = [
    "Allocation",
    "Submission",
    "ask",
    "cancel",
    "read_submission",
    "render",
    "scaling",
    "submit",
    "train",
    "tune",
]
