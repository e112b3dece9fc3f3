"""A learner: the parameters that one phase of the task trains, with their optimizer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hpc_train.errors import ConfigError
from hpc_train.optim import Group, Grouping, Settings, find_optimizer, make_optimizer
from hpc_train.strategies.arena import Arena, Piece, make_arenas

logger = logging.getLogger(__name__)

_EMPTY: Mapping[str, torch.Tensor] = {}


class Learner:
    """Arenas and optimizer of one phase.

    Args:
        name: the name of the phase.
        named: the parameters that it trains, by name.
        optimizer: the name of its optimizer.
        settings: what the optimizer is told.
        clip_norm: largest norm of the gradient; None for no limit.
        grouping: which parameters have a rate or a decay of their own.

    Attributes:
        name: the name of the phase.
        arenas: where its parameters and gradients lie.
        pieces: all pieces of all arenas, with their arenas.
        kind: what is known of its optimizer.
        rate, factor: the learning rate of the next update, and as a part of the base rate.

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
        grouping: Grouping | None = None,
    ) -> None:
        self.name = name
        members = [(n, parameter) for n, parameter in named if parameter.requires_grad]
        groups = (grouping or Grouping()).groups(members)
        if find_optimizer(optimizer).by_layer:
            self.arenas = make_arenas(members, lambda n: n)
        else:
            order = {group: place for place, group in enumerate(dict.fromkeys(groups.values()))}
            members.sort(key=lambda member: order[groups[member[0]]])
            self.arenas = make_arenas(members, groups.__getitem__)
        if not self.arenas:
            raise ConfigError(
                f"phase {name} has no parameters to train",
                hint="leave requires_grad of some parameters of the model true",
            )
        self.kind = find_optimizer(optimizer)
        self._kind = optimizer
        self._settings = settings
        self.clip_norm = clip_norm
        self.rate = settings.lr
        self.factor = 1.0
        self.pieces = [(arena, piece) for arena in self.arenas for piece in arena.pieces]
        by_group: dict[Group, list[nn.Parameter]] = {}
        for _, piece in self.pieces:
            by_group.setdefault(groups[piece.names[0]], []).append(piece.flat)
        self._factors = [group.rate for group in by_group]
        parameters = [_torch_group(g, flats, settings) for g, flats in by_group.items()]
        self.optimizer = make_optimizer(optimizer, parameters, settings)
        self._group_of = {
            flat: group for group in self.optimizer.param_groups for flat in group["params"]
        }
        self._keeps = sorted(self.kind.keeps(settings))

    @property
    def num_weights(self) -> int:
        """How many numbers are trained."""
        shapes = (shape for arena in self.arenas for _, shape in arena.places.values())
        return sum(shape.numel() for shape in shapes)

    def set_rate(self, factor: float) -> None:
        """Let the next update use `factor` times the base rate."""
        self.factor = factor
        self.rate = self._settings.lr * factor
        for group, own in zip(self.optimizer.param_groups, self._factors, strict=True):
            group["lr"] = self.rate * own

    def groups_at(self, factor: float) -> dict[nn.Parameter, dict[str, Any]]:
        """How the optimizer treats each piece, by its flat parameter, at another rate.

        Args:
            factor: of the base rate; that of the next update stays as it is.
        """
        found: dict[nn.Parameter, dict[str, Any]] = {}
        for group, own in zip(self.optimizer.param_groups, self._factors, strict=True):
            treated = group | {"lr": self._settings.lr * factor * own}
            found |= dict.fromkeys(group["params"], treated)
        return found

    def make_state(self) -> None:
        """Let the optimizer have all that it keeps, at zero where nothing is there yet."""
        for _, piece in self.pieces:
            held = self.optimizer.state[piece.flat]
            for what in self._keeps:
                if held.get(what) is None:
                    flat = piece.flat.detach()
                    held[what] = (
                        flat.new_zeros(()).float() if what == "step" else torch.zeros_like(flat)
                    )

    def begin(self) -> None:
        """Get ready for the gradients of a step, all of which are there after `gather`."""
        for arena in self.arenas:
            arena.begin()

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
        norm = math.hypot(*[torch.linalg.vector_norm(a.grad).item() for a in self.arenas])
        if math.isfinite(norm):
            return norm
        # squares of large numbers are not finite in single precision
        exact = (torch.linalg.vector_norm(a.grad, dtype=torch.float64) for a in self.arenas)
        return math.hypot(*map(float, exact))

    def update(self, factor: float) -> None:
        """Update the parameters with `factor` times the gradient."""
        for arena in self.arenas:
            arena.grad.mul_(factor)
        self.step()

    def step(self) -> None:
        """Update the parameters with the gradient as it is, which is not written to."""
        if not self._step_fused():
            self.optimizer.step()

    def _step_fused(self) -> bool:
        """Do what `optimizer.step` does, by the kernel that it calls at last; false if it cannot.

        On the way there torch spends more time than the kernel takes for a small network.
        """
        kernel, open_pieces = self.kind.kernel, []
        if kernel is None or not self.optimizer.defaults.get("fused"):
            return False
        for _, piece in self.pieces:
            if piece.flat.grad is not None:
                state = self.optimizer.state.get(piece.flat, _EMPTY)
                own = {what: state[what] for what in self._keeps if state.get(what) is not None}
                if len(own) < len(self._keeps):  # the optimizer has not made it yet
                    return False
                open_pieces.append((piece.flat, own))
        with torch.no_grad():
            for flat, own in open_pieces:
                if "step" in own:
                    own["step"] += 1
                assert flat.grad is not None
                kernel(flat, flat.grad, own, self._group_of[flat])
        return True

    def state(self) -> dict[str, torch.Tensor]:
        """The optimizer's state as `<parameter>/<what>` -> tensor, views where possible."""
        found: dict[str, torch.Tensor] = {}
        for arena, piece in self.pieces:
            for what, value in self.optimizer.state.get(piece.flat, {}).items():
                if not isinstance(value, torch.Tensor):
                    continue
                whole = value.shape == piece.flat.shape
                for name in piece.names:
                    part = arena.view_of(piece, value, name) if whole else value
                    found[f"{name}/{what}"] = part
        return found

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Take over what `state` told; what it does not name stays as it is.

        State of another kind of optimizer cannot be used: it is left out, with a warning.
        """
        kind = self.kind
        kinds = {key.rsplit("/", 1)[1] for key in state}
        if state and not kind.state <= kinds <= kind.knows:
            logger.warning(
                "the state of another optimizer (%s) cannot be used: %s begins anew",
                ", ".join(sorted(kinds)),
                self._kind,
            )
            return
        by_name: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            name, what = key.rsplit("/", 1)
            by_name.setdefault(name, {})[what] = value
        for arena, piece in self.pieces:
            if any(name in by_name for name in piece.names):
                self._load_piece(arena, piece, by_name)

    def mix_state(
        self, part: float, reduce: Callable[[], None], most: Callable[[float], float]
    ) -> None:
        """Replace the optimizer's state by the sum over ranks of `part` times it; collective.

        Gradients are overwritten.

        Args:
            part: this rank's, in [0, 1]; 1 in sum.
            reduce: sums the gradients over all ranks, in place.
            most: the largest of all ranks' values; steps are counted by who made most of them.
        """
        mixed: list[dict[str, torch.Tensor]] = [{} for _ in self.pieces]
        for what in sorted(self.kind.keeps(self._settings)):
            own = [self.optimizer.state.get(p.flat, {}).get(what) for _, p in self.pieces]
            if what == "step":
                for state, value in zip(mixed, own, strict=True):
                    state[what] = torch.tensor(most(0.0 if value is None else float(value)))
                continue
            for (arena, piece), value in zip(self.pieces, own, strict=True):
                scratch = arena.grad[piece.start : piece.stop]
                if value is None:
                    scratch.zero_()
                else:
                    torch.mul(value, part, out=scratch)
            reduce()
            for (arena, piece), state in zip(self.pieces, mixed, strict=True):
                state[what] = arena.grad[piece.start : piece.stop].clone()
        for (_, piece), state in zip(self.pieces, mixed, strict=True):
            if state:
                self.optimizer.state[piece.flat] = state

    def forget(self) -> None:
        """Let the optimizer begin anew, with nothing seen so far."""
        for arena, piece in self.pieces:
            state = {**self.optimizer.state.get(piece.flat, {})}
            if "step" in state:
                state.pop("step").zero_()
            arena.write(lambda data, state=state: _zero(state.values()))  # type: ignore[misc]

    def keep_in(self, memory: Sequence[Mapping[str, torch.Tensor]]) -> None:
        """Let the optimizer's state lie in other memory, and begin at zero.

        Args:
            memory: of each piece, by what it keeps, zeros of shape (stop - start,).
        """
        for (_, piece), held in zip(self.pieces, memory, strict=True):
            own = dict(held)
            if "step" in self.kind.state:
                own["step"] = torch.zeros((), dtype=torch.float32)
            self.optimizer.state[piece.flat] = own

    def kept(self) -> list[str]:
        """What the optimizer keeps of each weight, by name, in order."""
        return sorted(self.kind.keeps(self._settings) - {"step"})

    def _load_piece(
        self, arena: Arena, piece: Piece, by_name: dict[str, dict[str, torch.Tensor]]
    ) -> None:
        """What is not told of some weights is zero there."""
        own: dict[str, torch.Tensor] = {}
        told = {
            what: {n: by_name[n][what] for n in piece.names if what in by_name.get(n, {})}
            for what in sorted(self.kind.keeps(self._settings))
        }
        if "step" in told:  # one number for the piece, where the optimizer keeps it
            step = next(iter(told.pop("step").values()))
            own["step"] = step.to(piece.flat.device, copy=True)
        held = self.optimizer.state.get(piece.flat, {}) if arena.shared else {}
        for what in told:
            found = held.get(what)
            own[what] = torch.zeros_like(piece.flat.detach()) if found is None else found

        def fill(data: torch.Tensor) -> None:
            for what, values in told.items():
                own[what].zero_()
                for name, value in values.items():
                    arena.view_of(piece, own[what], name).copy_(value)

        arena.write(fill)
        self.optimizer.state[piece.flat] = own


def _zero(tensors: Iterable[torch.Tensor]) -> None:
    for tensor in tensors:
        tensor.zero_()


def _torch_group(group: Group, flats: list[nn.Parameter], settings: Settings) -> dict[str, object]:
    """The parameters of a group as torch's optimizers take them."""
    found: dict[str, object] = {"params": flats, "lr": settings.lr * group.rate}
    if not group.decays:
        found |= {"weight_decay": 0.0, "adapts": False}
    return found
