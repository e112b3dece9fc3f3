"""Reinforcement: losses by hand, for each rule, with and without a copy of the network."""

import pytest
import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.models.table import table
from hpc_train.tasks import Reinforcement, TensorBatch
from hpc_train.tasks.reinforcement import greedy

VALUES = torch.tensor([[1.0, 2.0], [5.0, 3.0], [0.0, 7.0]])
OTHER = torch.tensor([[0.0, 0.0], [10.0, 20.0], [40.0, 30.0]])


def model(values=VALUES):
    made = table((3,), 2)
    made[1].weight.data = values.T.clone()
    return made


def batch():
    one = torch.eye(3)
    targets = {
        "action": torch.tensor([0, 1, 0]),
        "reward": torch.tensor([1.0, 2.0, 3.0]),
        "next_observation": one[[1, 2, 0]],
        "next_action": torch.tensor([1, 0, 0]),
        "terminated": torch.tensor([0.0, 0.0, 1.0]),
    }
    return TensorBatch({"observation": one}, targets, torch.arange(3))


@pytest.mark.parametrize(
    ("rule", "has_copy", "wanted"),
    [
        ("sarsa", False, [1 + 0.5 * 3, 2 + 0.5 * 0, 3]),
        ("q_learning", False, [1 + 0.5 * 5, 2 + 0.5 * 7, 3]),
        ("q_learning", True, [1 + 0.5 * 20, 2 + 0.5 * 40, 3]),
        ("double_q_learning", True, [1 + 0.5 * 10, 2 + 0.5 * 30, 3]),
    ],
)
def test_targets_are_those_of_the_rule(rule, has_copy, wanted):
    task = Reinforcement(rule, loss="squared", discount=0.5, target_every=1)
    if has_copy:
        task.target = dict(model(OTHER).state_dict())
    losses = task.losses(model(), batch())
    found = torch.tensor([1.0, 3.0, 0.0])
    torch.testing.assert_close(losses.values, 0.5 * (found - torch.tensor(wanted)).square())
    assert losses.sums["value"].item() == 4.0


def test_a_step_of_sgd_is_the_tabular_update_of_q_learning():
    """Q(s, a) += rate * (r + discount * max Q(s', .) - Q(s, a)), and no other entry."""
    task, net = Reinforcement("q_learning", loss="squared", discount=0.5), model()
    task.losses(net, batch()).values.sum().backward()
    with torch.no_grad():
        net[1].weight -= 0.1 * net[1].weight.grad
    expected = VALUES.clone()
    expected[0, 0] += 0.1 * (1 + 0.5 * 5 - 1)
    expected[1, 1] += 0.1 * (2 + 0.5 * 7 - 3)
    expected[2, 0] += 0.1 * (3 - 0)
    torch.testing.assert_close(net[1].weight.detach().T, expected)


def test_epsilon_falls_linearly_and_stays():
    task = Reinforcement(epsilon=(0.8, 0.2), epsilon_steps=100)
    assert [task.epsilon(n) for n in (0, 50, 100, 1000)] == pytest.approx([0.8, 0.5, 0.2, 0.2])


def test_rounding_chooses_no_action():
    values = torch.tensor([[1.0, 1.0 + 1e-12, 0.5], [1.0, 1.1, 1.1]], dtype=torch.float64)
    assert greedy(values).tolist() == [0, 1]


@pytest.mark.parametrize(
    "arguments",
    [
        {"rule": "dqn"},
        {"loss": "l1"},
        {"slots": 0},
        {"replay": -1},
        {"epsilon": [0.5]},
        {"discount": 1.5},
        {"environment": 3},
    ],
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ConfigError, match="task"):
        Reinforcement(**arguments)


def test_a_table_begins_with_what_it_is_told():
    assert table((2, 3), 4, initial=1.5)(torch.eye(6).view(6, 2, 3)).tolist() == [[1.5] * 4] * 6
    assert isinstance(table((2,), 1)[1], nn.Linear)
