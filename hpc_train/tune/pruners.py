"""Pruners: who ends trials that promise little. All of them are Optuna's own.

They compare values at the same number of evaluations. L. Li et al., "A system for massively
parallel hyperparameter tuning" (ASHA), MLSys 2020; L. Li et al., "Hyperband", JMLR 18 (2018).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hpc_train.config.study import Pruner

if TYPE_CHECKING:
    from optuna.pruners import BasePruner


def _none(section: Pruner) -> BasePruner:
    from optuna.pruners import NopPruner

    return NopPruner()


def _median(section: Pruner) -> BasePruner:
    from optuna.pruners import MedianPruner

    return MedianPruner(n_startup_trials=section.startup_trials, n_warmup_steps=section.warmup)


def _asha(section: Pruner) -> BasePruner:
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=section.least, reduction_factor=section.reduction)


def _hyperband(section: Pruner) -> BasePruner:
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(
        min_resource=section.least,
        max_resource=section.most or "auto",
        reduction_factor=section.reduction,
    )


# name in the configuration -> what makes it
PRUNERS: dict[str, Callable[[Pruner], BasePruner]] = {
    "none": _none,
    "median": _median,
    "asha": _asha,
    "hyperband": _hyperband,
}
