"""Samplers: who proposes the next trial. All of them are Optuna's own.

A sampler is made anew for each trial, with a seed drawn from (seed of the study, number of the
trial): so it needs no state of its own, and a study that is resumed goes on as if it had never
been interrupted. What CMA-ES, NSGA-II and quasi-random sequences remember lies in the study.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from hpc_train.config.study import Sampler
from hpc_train.errors import SetupError

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

# sampler -> whether its proposals wait for results
ADAPTIVE = {
    "grid": False,
    "random": False,
    "quasi-random": False,
    "tpe": True,
    "gp": True,
    "cmaes": True,
    "nsga2": True,
}
# these remember in the study what cannot be told from trials and results
STATEFUL = ("quasi-random", "cmaes", "nsga2")
# these are one sequence, so all trials share a seed
SEQUENCES = ("quasi-random",)


def _random(section: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def _quasi_random(section: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import QMCSampler

    return QMCSampler(qmc_type="sobol", scramble=True, seed=seed, warn_independent_sampling=False)


def _tpe(section: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import TPESampler

    return TPESampler(
        n_startup_trials=section.startup_trials,
        multivariate=True,
        group=True,
        constant_liar=True,  # trials run at the same time must not all ask the same question
        seed=seed,
    )


def _gp(section: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(n_startup_trials=section.startup_trials, seed=seed)


def _cmaes(section: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import CmaEsSampler

    return CmaEsSampler(
        n_startup_trials=section.startup_trials, seed=seed, warn_independent_sampling=False
    )


def _nsga2(section: Sampler, seed: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=section.population, seed=seed)


# name in the configuration -> what makes it; the points of a grid are queued, and never run out
SAMPLERS: dict[str, Callable[[Sampler, int], BaseSampler]] = {
    "grid": _random,
    "random": _random,
    "quasi-random": _quasi_random,
    "tpe": _tpe,
    "gp": _gp,
    "cmaes": _cmaes,
    "nsga2": _nsga2,
}


def require_optuna() -> None:
    """Check that the libraries of the extra `tune` are there, and let them speak through us alone.

    Raises:
        SetupError: if not.
    """
    try:
        import cmaes  # noqa: F401 - optuna looks for it when it is too late to complain
        import optuna
        import scipy  # noqa: F401 - the same
    except ImportError as error:
        raise SetupError(
            f"a search needs the extra tune ({error.name} is missing)",
            hint="pip install 'hpc-train[tune]'",
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
