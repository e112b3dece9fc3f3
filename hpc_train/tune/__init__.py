"""Many trials of a configuration in one MPI job: hyper-parameter search.

    STUDY.toml -> prepare -> session, on all ranks
                               rank 0    lead: journal - search (Optuna) - coordinator
                               all       member: trains trials in groups of ranks

`space`, `history`, `assign`, `durations`, `roster`, `population` and `coordinator` decide, without
MPI, clock or torch; `session`, `lead` and `member` act.
"""

from __future__ import annotations

from hpc_train.tune.again import find_study_folder, find_trial, read_study
from hpc_train.tune.history import History, Trial, replay
from hpc_train.tune.lead import Ended
from hpc_train.tune.prepare import Prepared, check_same, prepare
from hpc_train.tune.session import run

__all__ = [
    "Ended",
    "History",
    "Prepared",
    "Trial",
    "check_same",
    "find_study_folder",
    "find_trial",
    "prepare",
    "read_study",
    "replay",
    "run",
]
