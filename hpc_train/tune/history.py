"""What became of each trial: the pure replay of a journal.

    asked -> (started -> reported ... -> paused)* -> finished: complete | pruned | failed

A trial that was started and neither paused nor finished when the journal ends was running when
the study was killed: it is one that waits, to be continued from its checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpc_train.config.study import Objective

WAITING, COMPLETE, PRUNED, FAILED = "waiting", "complete", "pruned", "failed"


@dataclass
class Trial:
    """One trial.

    Attributes:
        number: counted from 0, in the order in which they were asked for.
        params: its point.
        state: WAITING (or running), COMPLETE, PRUNED or FAILED.
        reports: values of the objectives at each evaluation, by its number, counted from 1.
        values: of the objectives; empty unless it is complete or pruned.
        reason: why it was pruned or failed.
        parts: [ranks, start, stop] of each stretch of training, seconds since the epoch.
        generation: of a population.
        prune: whether it was told to end.
        lost: how often its ranks died.
        done: the part of it that had been trained at its last evaluation.
    """

    number: int
    params: dict[str, Any]
    state: str = WAITING
    reports: dict[int, list[float]] = field(default_factory=dict)
    values: list[float] = field(default_factory=list)
    reason: str = ""
    parts: list[dict[str, Any]] = field(default_factory=list)
    generation: int = 0
    prune: bool = False
    lost: int = 0
    done: float = 0.0

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.state != WAITING

    @property
    def busy_seconds(self) -> float:
        """Rank-seconds that were spent on it."""
        return sum(
            float(len(part["ranks"]) * (part["stop"] - part["start"]))
            for part in self.parts
            if part["stop"] is not None
        )


@dataclass
class History:
    """All trials of a study.

    Attributes:
        trials: by number.
        prior: trials of earlier studies: params and values.
        sessions: start, ranks and (if it ended by itself) stop of each time the study ran.
        digest: what the study was started with; None for a new one.
        about: the whole record of that.
    """

    trials: list[Trial] = field(default_factory=list)
    prior: list[dict[str, Any]] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    digest: str | None = None
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def finished(self) -> list[Trial]:
        """The trials of which nothing is left to do."""
        return [trial for trial in self.trials if trial.is_finished]

    def best(self, directions: Sequence[str]) -> list[Trial]:
        """The best complete trial first; of several objectives, those that none dominates."""
        done = [trial for trial in self.trials if trial.state == COMPLETE]
        sign = [1.0 if word == "minimize" else -1.0 for word in directions]
        costs = {t.number: [s * v for s, v in zip(sign, t.values, strict=True)] for t in done}
        if len(sign) == 1:
            return sorted(done, key=lambda trial: (costs[trial.number], trial.number))
        return [
            t for t in done if not any(_dominates(costs[o.number], costs[t.number]) for o in done)
        ]


def outcome(trial: Trial, objectives: Sequence[Objective]) -> list[float]:
    """The values of a trial, from its evaluations; none if there is none."""
    found = []
    for place, objective in enumerate(objectives):
        series = [trial.reports[step][place] for step in sorted(trial.reports)]
        if series and objective.value == "best":
            finite = [value for value in series if math.isfinite(value)] or series
            series = [max(finite) if objective.metric.startswith("max") else min(finite)]
        found += series[-1:]
    return found


def replay(records: Iterable[dict[str, Any]]) -> History:
    """The state of a study after these records."""
    history = History()
    for record in records:
        apply(history, record)
    return history


def apply(history: History, record: dict[str, Any]) -> None:
    """Let the history hold one more record; kinds that it does not know change nothing."""
    kind = record["kind"]
    if kind == "study":
        history.digest = record["digest"]
        history.about = record
    elif kind == "prior":
        history.prior.append({"params": record["params"], "values": record["values"]})
    elif kind == "session":
        if history.sessions:
            _cut_off(history)
        history.sessions.append({"start": record["time"], "ranks": record["ranks"], "stop": None})
    elif kind == "left":
        told = {key: record.get(key) for key in ("overhead", "looking", "complete")}
        history.sessions[-1] |= {"stop": record["time"], **told}
    elif kind == "asked":
        history.trials.append(Trial(record["trial"], record["params"]))
    elif kind == "generation":
        _next_generation(history, record)
    elif "trial" in record:
        _apply_to(history.trials[record["trial"]], record)


def _apply_to(trial: Trial, record: dict[str, Any]) -> None:
    kind = record["kind"]
    if kind == "started":
        trial.parts.append({"ranks": record["ranks"], "start": record["time"], "stop": None})
    elif kind == "reported":
        trial.reports[record["step"]] = [_number(value) for value in record["values"]]
        trial.prune = trial.prune or record["decision"] == "prune"
        trial.done = record.get("done", trial.done)  # version 1 had none at first
    elif kind in ("paused", "lost", "finished") and trial.parts and not trial.parts[-1]["stop"]:
        trial.parts[-1]["stop"] = record["time"]
    if kind == "lost":
        trial.lost += 1
    if kind == "finished":
        trial.state, trial.reason = record["state"], record["reason"]
        trial.values = [_number(value) for value in record["values"]]


def _next_generation(history: History, record: dict[str, Any]) -> None:
    """The members that go on, some of them from another one's checkpoint."""
    for member in record["members"]:
        trial = history.trials[member["trial"]]
        trial.generation = record["generation"]
        trial.params = member["params"]


def _cut_off(history: History) -> None:
    """A session that was killed: what was running then ended at its last sign of life."""
    for trial in history.trials:
        if trial.parts and trial.parts[-1]["stop"] is None:
            trial.parts[-1]["stop"] = trial.parts[-1]["start"]


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _dominates(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(x <= y for x, y in zip(a, b, strict=True)) and list(a) != list(b)
