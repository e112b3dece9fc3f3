"""Functions with known minima, as studies: who finds them with how many trials."""

import math
import statistics

from hpc_train.config.study import Study
from hpc_train.tune import warm
from hpc_train.tune.search import Search
from hpc_train.tune.space import Space

_ALPHA = (1.0, 1.2, 3.0, 3.2)
_A = (
    (10, 3, 17, 3.5, 1.7, 8),
    (0.05, 10, 17, 0.1, 8, 14),
    (3, 3.5, 1.7, 10, 17, 8),
    (17, 8, 0.05, 10, 0.1, 14),
)
_P = (
    (0.1312, 0.1696, 0.5569, 0.0124, 0.8283, 0.5886),
    (0.2329, 0.4135, 0.8307, 0.3736, 0.1004, 0.9991),
    (0.2348, 0.1451, 0.3522, 0.2883, 0.3047, 0.6650),
    (0.4047, 0.8828, 0.8732, 0.5743, 0.1091, 0.0381),
)


def branin(x: list[float]) -> float:
    """Branin's function, its minimum 0.397887; x in [-5, 10] x [0, 15]."""
    bowl = x[1] - 5.1 / (4 * math.pi**2) * x[0] ** 2 + 5 / math.pi * x[0] - 6
    return bowl**2 + 10 * (1 - 1 / (8 * math.pi)) * math.cos(x[0]) + 10


def hartmann6(x: list[float]) -> float:
    """Hartmann's function in six dimensions, its minimum -3.32237; x in [0, 1]^6."""
    return -sum(
        alpha * math.exp(-sum(a * (v - p) ** 2 for a, v, p in zip(row, x, place, strict=True)))
        for alpha, row, place in zip(_ALPHA, _A, _P, strict=True)
    )


# name -> function, bounds
FUNCTIONS = {
    "branin": (branin, [(-5.0, 10.0), (0.0, 15.0)]),
    "hartmann6": (hartmann6, [(0.0, 1.0)] * 6),
}


def study(sampler: str, bounds: list[tuple[float, float]], seed: int) -> Study:
    """A study over a box."""
    space = {f"x.x{n}": {"type": "float", "low": a, "high": b} for n, (a, b) in enumerate(bounds)}
    return Study.model_validate(
        {
            "study": {"config": "none", "trials": 1, "seed": seed},
            "objective": [{"metric": "min value"}],
            "sampler": {"name": sampler},
            "space": space,
        }
    )


def play(search: Search, function, trials: int) -> list[dict]:
    """Ask and tell, one after the other; params and values of each trial."""
    found = []
    for number in range(trials):
        params = search.ask()
        value = function(list(params.values()))
        search.tell(number, "complete", [value])
        found.append({"params": params, "values": [value]})
    return found


def samplers(trials: int, seeds: int) -> dict:
    """The best value after `trials` trials of each sampler on each function, over seeds."""
    told: dict = {}
    for name, (function, bounds) in FUNCTIONS.items():
        for sampler in ("random", "quasi-random", "tpe", "gp", "cmaes"):
            best = []
            for seed in range(seeds):
                section = study(sampler, bounds, seed)
                rows = play(Search(section, Space.ordered(section.space)), function, trials)
                best.append(min(row["values"][0] for row in rows))
            median = statistics.median(best)
            told.setdefault(name, {})[sampler] = {"median": median, "best": sorted(best)}
            print(f"{name:<10} {sampler:<13} median of the best {median:.4f}", flush=True)
    return told


def history(trials: int, seeds: int, sampler: str = "tpe") -> dict:
    """Trials that a study with history needs to reach the best value of a cold one.

    With the best known point tried again, and without: the second is the harder question. The
    history is a cold study with another seed; the value to reach is that of a third one.
    """
    told: dict = {}
    for name, (function, bounds) in FUNCTIONS.items():
        for way in ("results", "results, best tried again", "region"):
            needed, cold = [], []
            for seed in range(seeds):
                plain = study(sampler, bounds, seed)
                rows = play(Search(plain, Space.ordered(plain.space)), function, trials)
                goal = min(row["values"][0] for row in rows)
                cold.append(1 + [row["values"][0] for row in rows].index(goal))
                known = rows
                again = study(sampler, bounds, 1000 + seed)
                space, first, prior = Space.ordered(again.space), [], known
                best = warm.good(known, ["minimize"], 0.25)
                if way == "region":
                    space, prior = warm.narrowed(space, best), []
                if way.endswith("again"):
                    first = [best[0]["params"]]
                rows = play(Search(again, space, prior, first), function, trials)
                reached = [n for n, row in enumerate(rows, 1) if row["values"][0] <= goal]
                needed.append(reached[0] if reached else trials + 1)
            told.setdefault(name, {})[way] = {
                "needed": needed,
                "cold": cold,
                "median_needed": statistics.median(needed),
                "median_cold": statistics.median(cold),
                "trials": trials,
            }
            print(name, way, told[name][way]["median_needed"], "of", trials, flush=True)
    return told
