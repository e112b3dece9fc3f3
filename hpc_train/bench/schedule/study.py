"""Every policy on the same ranks: when steps finish, beside the all-knowing ideal. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hpc_train.bench.schedule.ranks import Ranks
from hpc_train.config.schema.ranks import Schedule
from hpc_train.schedule import (
    POLICIES,
    Reserve,
    Scheduler,
    Situation,
    finish_seconds,
    replay,
    split,
)

IDEAL = "ideal"


def study(ranks: Ranks, quantum: int = 1) -> dict[str, Any]:
    """What every policy makes of `ranks`, as JSON.

    Args:
        ranks: who computes.
        quantum: samples of a micro-batch, for policies that deal in those.

    Returns:
        For each policy, and for "ideal" (the best split of every step, by its own seconds):
        `finish_seconds` of each step, their sum, the changes of plan, and the last step's counts
        and seconds of each rank.
    """
    sides = {IDEAL: _ideal(ranks)}
    for name, policy in POLICIES.items():
        situation = Situation.unknown(ranks.batch_size, ranks.num_ranks, quantum=quantum)
        reserve = (
            Reserve(Schedule().reserve_share) if policy.reserves and ranks.num_ranks > 1 else None
        )
        scheduler = Scheduler(policy, situation, ranks.num_steps, reserve)
        steps = replay(scheduler, ranks.seconds, ranks.num_steps)
        sides[name] = {
            "seconds": math.fsum(step.finish for step in steps),
            "changes": scheduler.balance.changes,
            "finish_seconds": [step.finish for step in steps],
            "counts": list(steps[-1].counts),
            "busy_seconds": list(steps[-1].seconds),
        }
    return {
        "source": ranks.source,
        "ranks": ranks.num_ranks,
        "steps": ranks.num_steps,
        "batch_size": ranks.batch_size,
        "sides": sides,
    }


def _ideal(ranks: Ranks) -> dict[str, Any]:
    finishes, before, changes = [], None, 0
    counts = np.zeros(ranks.num_ranks, np.int64)
    for fixed, pace in zip(ranks.fixed, ranks.pace, strict=True):
        counts = split(ranks.batch_size, fixed, pace)
        finishes.append(finish_seconds(counts, fixed, pace))
        changes += before is not None and before != counts.tolist()
        before = counts.tolist()
    return {
        "seconds": math.fsum(finishes),
        "changes": changes,
        "finish_seconds": finishes,
        "counts": counts.tolist(),
        "busy_seconds": ranks.seconds(ranks.num_steps - 1, counts).tolist(),
    }


def rows(document: dict[str, Any]) -> list[list[str]]:
    """The figures as a table: seconds, parts of the ideal and of equal shares."""
    sides = document["sides"]
    table = [["policy", "seconds", "of ideal", "vs static", "changes", "last shares"]]
    for name, side in sides.items():
        shown = side["counts"][:8]
        more = " ..." if len(side["counts"]) > len(shown) else ""
        table.append(
            [
                name,
                f"{side['seconds']:.4g}",
                f"{sides[IDEAL]['seconds'] / side['seconds']:.1%}",
                f"{sides['static']['seconds'] / side['seconds']:.2f}x",
                str(side["changes"]),
                " ".join(map(str, shown)) + more,
            ]
        )
    return table
