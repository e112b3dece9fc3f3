"""What `gridworld-sarsa` and `cartpole-dqn` learn, with several seeds; see README.md.

python benchmarks/techniques/reinforcement.py gridworld|cartpole [OVERRIDE]...
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from hpc_train.bench.harness import circumstances, write_results
from hpc_train.reinforcement.gridworld import value_iteration
from hpc_train.tasks.reinforcement import greedy
from hpc_train.train.played import environment_of
from hpc_train.train.trained import open_run

HERE = Path(__file__).parent
RECIPES = {"gridworld": "gridworld-sarsa", "cartpole": "cartpole-dqn"}
SEEDS = 3
WANTED = 475.0  # mean return of 100 episodes
MOST_STEPS = 150_000  # of the environment


def is_optimal(run: Path) -> dict:
    """In how many free places the learned action is one of the best, by dynamic programming."""
    trained = open_run(run)
    world = environment_of(trained.config, trained.config.data.train)
    best = value_iteration(*world.dynamics(), trained.config.task.arguments["discount"])
    states = torch.eye(world.observation_shape[0], dtype=next(trained.model.parameters()).dtype)
    with torch.no_grad():
        chosen = greedy(trained.model(states)).numpy()
    right = [bool(np.isclose(best[s, chosen[s]], best[s].max(), atol=1e-9)) for s in world.free]
    return {"places": len(right), "optimal": sum(right)}


def reached(run: Path) -> dict:
    """When an evaluation of 100 episodes first had the wanted return, and the last one's."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    played, found = 0, []
    for record in records:
        if record["kind"] == "step":
            played = record["metrics"]["environment_steps"]
        elif record["kind"] == "evaluation":
            found.append((played, record["metrics"]["return"]))
    first = next((steps for steps, value in found if value >= WANTED), None)
    return {
        "first_environment_steps": first,
        "is_reached": first is not None and first <= MOST_STEPS,
        "best_return": max(value for _, value in found),
        "last_return": found[-1][1],
        "environment_steps": played,
    }


def main(study: str, overrides: list[str]) -> None:
    """Train with several seeds; print and record."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(SEEDS):
            run = Path(temporary) / f"seed-{seed}"
            words = [RECIPES[study], f"run.dir={run}", f"run.seed={seed}", "device.threads=1"]
            program = [sys.executable, "-m", "hpc_train", "run", *words, *overrides]
            ended = subprocess.run(program, capture_output=True, text=True, check=False)
            if ended.returncode != 0:
                raise SystemExit(f"seed {seed} failed:\n{ended.stderr}")
            figures = is_optimal(run) if study == "gridworld" else reached(run)
            found.append({"seed": seed, **figures})
            print(json.dumps(found[-1]), flush=True)
    if not overrides:
        write_results(
            HERE / "results" / f"{study}.json",
            {"benchmark": f"techniques/{study}", "seeds": found, "environment": circumstances()},
        )


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in RECIPES:
        raise SystemExit(f"usage: reinforcement.py {{{','.join(RECIPES)}}} [OVERRIDE]...")
    main(sys.argv[1], sys.argv[2:])
