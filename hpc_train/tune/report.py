"""What a study found, as figures: the best trials, importance, curves, who did what when. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.tune.history import COMPLETE, PRUNED, History, Trial

SCHEMA_VERSION = 1
_NEIGHBOURS = 0.1  # bandwidth of the importance, in units of a parameter's range


def report(history: History, num_best: int = 10) -> dict[str, Any]:
    """All figures of a study, as JSON.

    Args:
        history: what happened.
        num_best: length of the table of the best trials.
    """
    directions, metrics = history.about["directions"], history.about["metrics"]
    states = [trial.state for trial in history.trials]
    best = history.best(directions)[:num_best]
    return {
        "schema_version": SCHEMA_VERSION,
        "status": status(history),
        "metrics": metrics,
        "directions": directions,
        "counts": {state: states.count(state) for state in dict.fromkeys(states)},
        "best": [{"trial": t.number, "values": t.values, "params": t.params} for t in best],
        "importance": importance(history.trials, directions),
        "utilisation": utilisation(history),
        "overhead_seconds_per_trial": overhead(history),
        "looking_share": looking(history),
        "trials": [_row(trial) for trial in history.trials],
        "sessions": history.sessions,
    }


def status(history: History) -> str:
    """ "done", "paused" (trials are left), or "running or killed"."""
    if not history.sessions or history.sessions[-1]["stop"] is None:
        return "running or killed"
    return "done" if history.sessions[-1]["complete"] else "paused"


def utilisation(history: History) -> float | None:
    """Busy rank-seconds over (ranks x makespan) of all sessions that ended by themselves."""
    busy = offered = 0.0
    for session in history.sessions:
        if session["stop"] is None:
            continue
        parts = [part for trial in history.trials for part in trial.parts if part["stop"]]
        here = [p for p in parts if session["start"] <= p["start"] <= session["stop"]]
        if here:
            begin, end = min(p["start"] for p in here), max(p["stop"] for p in here)
            offered += session["ranks"] * (end - begin)
            busy += sum(len(p["ranks"]) * (p["stop"] - p["start"]) for p in here)
    return busy / offered if offered else None


def overhead(history: History) -> float | None:
    """Seconds that rank 0 spent on each trial: hearing, deciding, proposing, writing the journal.

    Of its own thread, which trains meanwhile, by the clock; of sessions that ended by themselves.
    The journal's thread, which waits for the disk, and looking for messages in vain are not in it.
    """
    spent = [s["overhead"] for s in history.sessions if s.get("overhead") is not None]
    return sum(spent) / len(history.trials) if spent and history.trials else None


def looking(history: History) -> float | None:
    """The part of rank 0's time that it spent looking for messages when there was none."""
    ended = [s for s in history.sessions if s.get("looking") is not None]
    seconds = sum(s["stop"] - s["start"] for s in ended)
    return sum(s["looking"] for s in ended) / seconds if seconds else None


def importance(trials: Sequence[Trial], directions: Sequence[str]) -> dict[str, float]:
    """How much of the variance of the first objective each parameter explains by itself.

    The variance of the mean value near each trial's parameter (a smoothed main effect), relative
    to the variance of the values; of complete trials. The first-order index of I. M. Sobol',
    "Global sensitivity estimates for nonlinear mathematical models" (1993), estimated by kernel
    smoothing. Empty with fewer than 4 trials.
    """
    done = [trial for trial in trials if trial.state == COMPLETE]
    if len(done) < 4:
        return {}
    values = np.array([trial.values[0] for trial in done])
    # ranks in place of values: one diverged trial must not be all of the variance
    ranks = np.argsort(np.argsort(values)).astype(np.float64)
    found = {}
    for key in dict.fromkeys(key for trial in done for key in trial.params):
        places = positions([trial.params.get(key) for trial in done])
        near = np.exp(-0.5 * ((places[:, None] - places[None, :]) / _NEIGHBOURS) ** 2)
        np.fill_diagonal(near, 0.0)  # a trial must not explain itself
        weight = near.sum(1)
        mean = np.where(weight > 1e-9, near @ ranks / np.maximum(weight, 1e-9), ranks.mean())
        slope = float(np.cov(mean, ranks)[0, 1] / max(float(ranks.var(ddof=1)), 1e-12))
        found[key] = round(min(max(slope, 0.0), 1.0), 4)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def positions(values: Sequence[Any]) -> NDArray[np.float64]:
    """Values of a parameter as places in [0, 1]; choices, and what is missing, far apart.

    Positive numbers over more than a decade are placed by their logarithm.
    """
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) + values.count(None) < len(values) or not numbers:
        names = list(dict.fromkeys(map(str, values)))
        return np.array([names.index(str(v)) / max(1, len(names) - 1) for v in values], np.float64)
    log = min(numbers) > 0 and max(numbers) / min(numbers) > 10
    scaled = [math.nan if v is None else math.log(v) if log else float(v) for v in values]
    low, high = np.nanmin(scaled), np.nanmax(scaled)
    places = (np.array(scaled) - low) / max(high - low, 1e-12)
    return np.where(np.isnan(places), -1.0, places)


def _row(trial: Trial) -> dict[str, Any]:
    finite = {
        step: [value if math.isfinite(value) else None for value in values]
        for step, values in sorted(trial.reports.items())
    }
    return {
        "trial": trial.number,
        "state": trial.state,
        "values": trial.values if trial.state in (COMPLETE, PRUNED) else [],
        "reason": trial.reason,
        "params": trial.params,
        "reports": finite,
        "parts": trial.parts,
        "rank_seconds": round(trial.busy_seconds, 3),
    }
