"""The search: ask for points, tell results; the only file that speaks with Optuna's study.

The study lives in memory, on rank 0 alone; the journal is what lasts. A search that is resumed
hears of the past in the order in which it happened: of samplers that remember more than trials
and results the questions are asked again (each has a seed of its own, so the answers are the
same), to others trials are given as they are.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from hpc_train.config.study import Parameter, Study
from hpc_train.philox import derive
from hpc_train.tune.pruners import PRUNERS
from hpc_train.tune.samplers import SAMPLERS, SEQUENCES, STATEFUL, require_optuna
from hpc_train.tune.space import Point, Space, active, bounds

if TYPE_CHECKING:
    import optuna

_STREAM = 0x747565  # of random bits


class Search:
    """Proposes points and learns from results; trials are numbered from 0 in the order of asking.

    Args:
        study: what is searched and how.
        space: the parameters, perhaps narrower than the study's.
        prior: trials of earlier studies that count as results: params and values.
        first: points to be tried before any other.

    Raises:
        SetupError: without the libraries of the extra `tune`.
    """

    def __init__(
        self,
        study: Study,
        space: Space,
        prior: Iterable[Mapping[str, Any]] = (),
        first: Iterable[Point] = (),
    ) -> None:
        require_optuna()
        import optuna

        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._section = study
        self._space = space
        self._study = optuna.create_study(
            study_name=study.study.name,  # of which Hyperband makes a trial's bracket
            directions=study.directions,
            sampler=self._sampler(0),
            pruner=PRUNERS[study.pruner.name](study.pruner),
        )
        self._waiting = [dict(point) for point in first]
        if study.sampler.name == "grid":
            self._waiting = self._space.grid()
        self._live: dict[int, optuna.Trial] = {}
        for one in prior:
            self._add(one["params"], optuna.trial.TrialState.COMPLETE, one["values"])

    @property
    def asked(self) -> int:
        """How many trials there are."""
        return len(self._live)

    def ask(self) -> Point:
        """The point of the next trial."""
        number = self.asked
        self._study.sampler = self._sampler(number)
        if self._waiting:
            point = self._waiting.pop(0)
            labels = {key: self._label(key, value) for key, value in point.items()}
            self._study.enqueue_trial(labels)
        trial = self._study.ask()
        self._live[number] = trial
        return self._space.ask(lambda key, one: _suggest(trial, key, one))

    def adopt(self, point: Point, *, again: bool = True) -> None:
        """Hear of a trial that was asked for before this search was resumed.

        Args:
            point: what was proposed.
            again: whether a sampler that remembers may be asked the same question again.
        """
        import optuna

        if again and self._section.sampler.name in STATEFUL:
            if self.ask() == point:
                return
            other = self._live.pop(self.asked - 1)  # by another version of the library
            self._study.tell(other.number, state=optuna.trial.TrialState.FAIL)
        elif self._waiting:
            self._waiting.pop(0)
        number = self._add(point, optuna.trial.TrialState.RUNNING, None)
        self._live[self.asked] = optuna.Trial(self._study, number)

    def report(self, number: int, step: int, values: list[float]) -> bool:
        """Hear what a trial reached in its evaluation `step`, from 1; whether it shall end."""
        several = len(self._section.objective) > 1
        if several or self._section.pruner.name == "none" or not math.isfinite(values[0]):
            return False
        trial = self._live[number]
        trial.report(values[0], step)
        return bool(trial.should_prune())

    def tell(self, number: int, state: str, values: list[float]) -> None:
        """Hear how a trial ended: "complete", "pruned" or "failed", with the values it reached."""
        from optuna.trial import TrialState

        trial = self._live[number].number
        if state == "complete":
            self._study.tell(trial, values)
        elif state == "pruned":
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _sampler(self, number: int) -> Any:
        section = self._section
        if section.sampler.name in SEQUENCES:
            number = 0
        seed = derive(section.study.seed, _STREAM, number) & 0x7FFFFFFF
        return SAMPLERS[section.sampler.name](section.sampler, seed)

    def _label(self, key: str, value: Any) -> Any:
        return label(value) if self._space.parameters[key].choices is not None else value

    def _add(self, point: Mapping[str, Any], state: Any, values: list[float] | None) -> int:
        """Give the study a trial as it is; its number there."""
        import optuna

        distributions = {
            key: distribution(one)
            for key, one in self._space.parameters.items()
            if active(one, point) and key in point
        }
        self._study.add_trial(
            optuna.create_trial(
                state=state,
                params={key: self._label(key, point[key]) for key in distributions},
                distributions=distributions,
                values=values,
            )
        )
        return len(self._study.get_trials(deepcopy=False)) - 1


def label(value: Any) -> Any:
    """What stands for a choice in Optuna, that knows no lists."""
    return value if isinstance(value, str | int | float | bool) else json.dumps(value)


def distribution(one: Parameter) -> Any:
    """The values of a parameter, as Optuna says it."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if one.choices is not None:
        return CategoricalDistribution([label(choice) for choice in one.choices])
    low, high = bounds(one)
    if one.type == "int":
        return IntDistribution(int(low), int(high), one.log, int(one.step or 1))
    return FloatDistribution(low, high, log=one.log, step=one.step)


def _suggest(trial: optuna.Trial, key: str, one: Parameter) -> Any:
    if one.choices is not None:
        labels = [label(choice) for choice in one.choices]
        return one.choices[labels.index(trial.suggest_categorical(key, labels))]
    low, high = bounds(one)
    if one.type == "int":
        step = int(one.step or 1)
        return trial.suggest_int(key, int(low), int(high), step=step, log=one.log)
    return trial.suggest_float(key, low, high, step=one.step, log=one.log)
