"""A learner: the parameters that one phase of the task trains, with their optimizer."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.optim import make_optimizer
from hpc_train.optim.optimizers import STATE, Settings
from hpc_train.strategies.arena import Arena, make_arenas

logger = logging.getLogger(__name__)


class Learner:
    """Arenas and optimizer of one phase.

    Attributes:
        name: the name of the phase.
        arenas: where its parameters and gradients lie.

    Raises:
        ConfigError: if no parameter wants a gradient.
    """

    def __init__(
        self,
        name: str,
        named: Iterable[tuple[str, nn.Parameter]],
        optimizer: str,
        settings: Settings,
        clip_norm: float | None = None,
    ) -> None:
        self.name = name
        self.arenas = make_arenas(named)
        if not self.arenas:
            raise ConfigError(
                f"phase {name} has no parameters to train",
                hint="leave requires_grad of some parameters of the model true",
            )
        self._kind = optimizer
        self.clip_norm = clip_norm
        self._base_rate = settings.lr
        self.optimizer = make_optimizer(optimizer, [a.flat for a in self.arenas], settings)

    @property
    def rate(self) -> float:
        """The learning rate of the next update."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def num_weights(self) -> int:
        """How many numbers are trained."""
        shapes = (shape for arena in self.arenas for _, shape in arena.places.values())
        return sum(shape.numel() for shape in shapes)

    def set_rate(self, factor: float) -> None:
        """Let the next update use `factor` times the base rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._base_rate * factor

    def zero(self) -> None:
        """Zero all gradients."""
        for arena in self.arenas:
            arena.zero()

    def gather(self) -> None:
        """Bring back whatever torch moved out of the arenas."""
        for arena in self.arenas:
            arena.gather()

    def norm(self) -> float:
        """The global 2-norm of the gradient; not finite if any element is not."""
        norms = [torch.linalg.vector_norm(arena.grad).double() for arena in self.arenas]
        return float(torch.linalg.vector_norm(torch.stack([n.cpu() for n in norms])))

    def update(self, factor: float) -> None:
        """Update the parameters with `factor` times the gradient."""
        for arena in self.arenas:
            arena.grad.mul_(factor)
        self.optimizer.step()

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state as `<parameter>/<what>` -> tensor, views where possible."""
        found: dict[str, torch.Tensor] = {}
        for arena in self.arenas:
            for what, value in self.optimizer.state.get(arena.flat, {}).items():
                if not isinstance(value, torch.Tensor):
                    continue
                for name in arena.places:
                    whole = value.shape == arena.data.shape
                    found[f"{name}/{what}"] = arena.view(value, name) if whole else value
        return found

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state` told; what it does not name stays as it is.

        State of another kind of optimizer cannot be used: it is left out, with a warning.
        """
        known = STATE[self._kind]
        kinds = {key.rsplit("/", 1)[1] for key in state}
        if not kinds <= known:
            logger.warning(
                "the state of another optimizer (%s) cannot be used: %s begins anew",
                ", ".join(sorted(kinds)),
                self._kind,
            )
            return
        for arena in self.arenas:
            self._load_arena(arena, state)

    def _load_arena(self, arena: Arena, state: dict[str, torch.Tensor]) -> None:
        own: dict[str, torch.Tensor] = {}
        for key, value in state.items():
            name, what = key.rsplit("/", 1)
            if name not in arena.places:
                continue
            if what == "step":  # one number for the arena, where the optimizer keeps it
                own[what] = value.to(arena.data.device, copy=True)
                continue
            flat = own.setdefault(what, torch.zeros_like(arena.data))
            arena.view(flat, name).copy_(value)
        if own:
            self.optimizer.state[arena.flat] = own
