"""Reinforcement learning of action values: Q-learning, SARSA, and deep Q-networks.

    transition (s, a, r, s', a', is s' terminal)      loss of Q(s, a) against r + discount * W(s')

    rule                W(s'), 0 if s' is terminal
    sarsa               Q'(s', a')                    Rummery and Niranjan, 1994
    q_learning          max over b of Q'(s', b)       Watkins, 1989
    double_q_learning   Q'(s', b), b the best of Q    van Hasselt, Guez and Silver, AAAI 2016

Q' is a copy of Q, brought up to date from time to time (Mnih et al., "Human-level control through
deep reinforcement learning", Nature 518, 2015), or Q itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.nn.functional import smooth_l1_loss

from hpc_train.errors import ConfigError, HpcTrainError, unknown
from hpc_train.tasks.task import Losses, Supervised, TensorBatch

Rule = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

# name -> W(s'), shape (n,), of the values Q(s', .) and Q'(s', .), shape (n, num_actions), and a'
RULES: dict[str, Rule] = {
    "sarsa": lambda own, target, action: pick(target, action),
    "q_learning": lambda own, target, action: target.max(1).values,
    "double_q_learning": lambda own, target, action: pick(target, own.argmax(1)),
}

# name -> loss of each sample, of predicted values and what they should be
LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "squared": lambda found, wanted: 0.5 * (found - wanted).square(),
    "huber": lambda found, wanted: smooth_l1_loss(found, wanted, reduction="none"),
}


class Reinforcement(Supervised):
    """Learns the values of actions by playing: `data.train` is "environment:NAME".

    Args:
        rule: sarsa, q_learning or double_q_learning.
        loss: squared (half of it, so that a step of SGD is the tabular update) or huber.
        discount: factor on what the next state is worth, in [0, 1].
        slots: episodes that are played side by side, over all ranks, >= 1.
        rounds: how often each slot acts when it is its turn, >= 1.
        every: updates between two turns, >= 1.
        replay: how many transitions are kept, from which batches are drawn; 0: a batch is what was
            just played, `slots` times `rounds` transitions.
        start: transitions that are played before the first update; by default a batch.
        target_every: updates between two copies of Q to Q'; 0: Q' is Q itself.
        epsilon: probability of a random action at first, and at last, each in [0, 1].
        epsilon_steps: transitions in which it goes from one to the other, >= 1.
        max_steps: most actions of an episode; by default as the environment has it.
        environment: arguments of the environment.
    """

    name = "values"
    metrics = ("value", "return", "length")

    def __init__(
        self,
        rule: str = "double_q_learning",
        loss: str = "huber",
        discount: float = 0.99,
        slots: int = 8,
        rounds: int = 1,
        every: int = 1,
        replay: int = 0,
        start: int | None = None,
        target_every: int = 0,
        epsilon: Sequence[float] = (1.0, 0.05),
        epsilon_steps: int = 10_000,
        max_steps: int | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:
        if rule not in RULES:
            raise ConfigError(unknown("rule", rule, RULES), where="task.rule")
        if loss not in LOSSES:
            raise ConfigError(unknown("loss", loss, LOSSES), where="task.loss")
        counts = {"slots": slots, "rounds": rounds, "every": every, "epsilon_steps": epsilon_steps}
        for key, value in {**counts, "max_steps": max_steps, "start": start}.items():
            if value is not None and (type(value) is not int or value < 1):
                raise ConfigError(f"task.{key} must be a positive integer (task.{key}: {value!r})")
        for key, value in {"replay": replay, "target_every": target_every}.items():
            if type(value) is not int or value < 0:
                raise ConfigError(f"task.{key} must be an integer >= 0 (task.{key}: {value!r})")
        if len(epsilon) != 2 or not all(0 <= value <= 1 for value in (*epsilon, discount)):
            raise ConfigError(
                "task.epsilon must be two numbers in [0, 1], and task.discount one of them "
                f"(task.epsilon: {epsilon!r}, task.discount: {discount!r})"
            )
        if environment is not None and not isinstance(environment, Mapping):
            raise ConfigError(f"task.environment must be a table (task.environment: {environment})")
        self._rule = RULES[rule]
        self._loss = LOSSES[loss]
        self._discount = discount
        self._epsilon = epsilon
        self._epsilon_steps = epsilon_steps
        self.slots, self.rounds, self.every_updates = slots, rounds, every
        self.replay, self.start = replay, start
        self.target_every = target_every
        self.max_steps = max_steps
        self.environment = dict(environment or {})
        self.target: dict[str, torch.Tensor] | None = None

    def epsilon(self, count: int) -> float:
        """The probability of a random action after `count` transitions."""
        first, last = self._epsilon
        return first + (last - first) * min(1.0, count / self._epsilon_steps)

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """One loss for each transition."""
        values = batch.through(model)
        fields = batch.targets
        if values.dim() != 2 or len(values) != len(batch):
            raise HpcTrainError(
                f"task reinforcement needs a model that gives one value for each action, "
                f"(n, num_actions) (given: {tuple(values.shape)})",
                where="model.name",
            )
        found = pick(values, fields["action"])
        with torch.no_grad():
            after = fields["next_observation"]
            own = model(after)
            target = own if self.target is None else functional_call(model, self.target, (after,))
            worth = self._rule(own, target, fields["next_action"])
            wanted = fields["reward"] + self._discount * (1 - fields["terminated"]) * worth
        return Losses(self._loss(found, wanted), sums={"value": found.sum()})


def pick(values: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    """The value of one action of each row, shape (n,)."""
    return values.gather(1, actions[:, None]).squeeze(1)


def greedy(values: torch.Tensor) -> torch.Tensor:
    """The best action of each row, int64, shape (n,).

    Of actions that are alike but for rounding it is the first one: what the ranks' sums differ by
    in the last bits chooses no other.
    """
    best = values.max(1, keepdim=True).values
    return (values >= best - 1e-6 * (1 + best.abs())).to(torch.uint8).argmax(1)
