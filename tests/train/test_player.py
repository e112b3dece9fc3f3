"""Learning by playing, as users start it: to the best policy, or to an error that says why not."""

import pytest
import torch

from hpc_train import Trainer
from hpc_train.errors import HpcTrainError
from hpc_train.reinforcement import Gridworld
from hpc_train.reinforcement.gridworld import value_iteration
from hpc_train.tasks.reinforcement import greedy
from tests.train.runs import comm, records

ROWS = ["...", ".#G", "..P"]
TASK = {"name": "reinforcement", "slots": 4, "discount": 0.9, "environment": {"rows": ROWS}}


def trainer(tmp_path, task=None, data=None, model=None, **run):
    return Trainer(
        model or {"name": "table"},
        comm=comm(),
        quiet=True,
        task=TASK | (task or {}),
        data={"train": "environment:gridworld", "inputs": "observation", "batch_size": 4}
        | (data or {}),
        run={"steps": 400, "dir": str(tmp_path / "run")} | run,
        precision={"dtype": "float64"},
        optimizer={"name": "sgd", "lr": 2.0},
        device={"name": "cpu", "threads": 1},
        checkpoint={"every": "never"},
    )


@pytest.mark.parametrize(
    "task",
    [
        {"rule": "sarsa", "loss": "squared", "epsilon": [1.0, 0.0], "epsilon_steps": 1200},
        {"rule": "q_learning", "loss": "squared", "replay": 300, "target_every": 10},
    ],
    ids=["sarsa", "replay"],
)
def test_the_policy_is_that_of_dynamic_programming(task, tmp_path):
    made = trainer(tmp_path, task, {"validation": "environment:gridworld[0:30]"})
    result = made.fit()
    world = Gridworld(rows=ROWS)
    best = torch.from_numpy(value_iteration(*world.dynamics(), 0.9))
    with torch.no_grad():
        chosen = greedy(made.model(torch.eye(9).double()))
    for place in world.free:
        assert best[place, chosen[place]] == pytest.approx(float(best[place].max())), place
    assert result.metrics["validation"]["return"] > 0.8
    last = records(tmp_path, "step")[-1]["metrics"]
    assert last["environment_steps"] == 4 * 401
    assert last["episodes"] > 50
    assert 0 < last["length"] < 30


@pytest.mark.parametrize(
    ("task", "data", "message"),
    [
        ({"name": "regression"}, {}, "need each other"),
        ({}, {"train": "builtin:digits/train"}, "need each other"),
        ({}, {"batch_size": 5}, "task.slots times task.rounds"),
        ({"replay": 3}, {}, "task.replay must hold a batch"),
        ({}, {"train": "environment:gridwrld"}, "gridwrld"),
        ({}, {"validation": "environment:gridworld[3:3]"}, "an episode in a range"),
        ({"environment": {"rows": ["x"]}}, {}, "a map must have rows"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_played(task, data, message, tmp_path):
    if task.get("name"):
        made = trainer(tmp_path)
        made.config.task.name = task["name"]
    else:
        made = trainer(tmp_path, task, data)
    with pytest.raises(HpcTrainError, match=message):
        made.fit()
