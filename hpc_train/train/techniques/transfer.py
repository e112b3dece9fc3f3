"""Transfer: first weights that were learned elsewhere, layers that stay as they are for a while."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import nn

from hpc_train.checkpoint import Store
from hpc_train.config import Config
from hpc_train.errors import ConfigError
from hpc_train.optim.groups import unmatched
from hpc_train.plan import Batch
from hpc_train.strategies import Arena, Learner
from hpc_train.strategies.arena import Piece
from hpc_train.train.technique import Technique
from hpc_train.train.weights import find_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Match:
    """Which tensors of a network are loaded; pure.

    Attributes:
        loaded: name here -> name there.
        replaced: layers that are learned anew, as asked for.
        missing: names here that are not there.
        mismatched: name -> (shape here, shape there).
        unused: names there that nothing here has.
    """

    loaded: dict[str, str]
    replaced: list[str]
    missing: list[str]
    mismatched: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    unused: list[str]

    def lines(self, where: str) -> list[str]:
        """A report for people."""
        found = [f"transfer: {len(self.loaded)} tensors loaded from {where}"]
        for what, names in (
            ("learned anew", self.replaced),
            ("missing there", self.missing),
            ("not used", self.unused),
        ):
            if names:
                found.append(f"transfer: {what}: {', '.join(names)}")
        for name, (here, there) in self.mismatched.items():
            found.append(f"transfer: left as it was: {name} has shape {here}, {there} there")
        return found


def match(
    own: Mapping[str, tuple[int, ...]],
    there: Mapping[str, tuple[int, ...]],
    patterns: Sequence[str],
    rename: Mapping[str, str],
    replace: Sequence[str],
) -> Match:
    """Which tensors are loaded, by their names and shapes.

    Args:
        own, there: shapes by name.
        patterns: of names here that shall be loaded.
        rename: beginnings of names there -> beginnings here; the first that fits counts.
        replace: patterns of names here that shall not be loaded.
    """
    source = {_renamed(name, rename): name for name in there}
    result = Match({}, [], [], {}, [])
    for name, shape in own.items():
        if any(fnmatchcase(name, pattern) for pattern in replace):
            result.replaced.append(name)
        elif not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        elif name not in source:
            result.missing.append(name)
        elif there[source[name]] != shape:
            result.mismatched[name] = shape, there[source[name]]
        else:
            result.loaded[name] = source[name]
    result.unused.extend(other for name, other in source.items() if name not in own)
    return result


def _renamed(name: str, rename: Mapping[str, str]) -> str:
    for old, new in rename.items():
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def reshape(config: Config, model: nn.Module) -> nn.Module:
    """Load and freeze what the configuration says; the same on all ranks.

    Raises:
        ConfigError: if nothing fits, or patterns name no parameter.
    """
    section = config.transfer
    names = [name for name, _ in model.named_parameters()]
    opened = [pattern for patterns in section.unfreeze.values() for pattern in patterns]
    for key, patterns in (
        ("replace", section.replace),
        ("freeze", section.freeze),
        ("unfreeze", opened),
    ):
        for pattern in unmatched(patterns, names):
            raise ConfigError(
                f'transfer.{key} must name parameters ("{pattern}" matches none)',
                where=f"transfer.{key}",
                hint=f"their names are such as {', '.join([*names[:2], *names[-1:]])}",
            )
    if opened and config.strategy.name != "allreduce":
        raise ConfigError(
            f'transfer.unfreeze needs strategy.name = "allreduce" ("{config.strategy.name}")',
            where="transfer.unfreeze",
        )
    if section.source is not None and not _goes_on(config):
        _load(config, model, section.source)
    later = openings(config, names)
    for name, parameter in model.named_parameters():
        if name not in later and any(fnmatchcase(name, pattern) for pattern in section.freeze):
            parameter.requires_grad_(False)
    return model


def _goes_on(config: Config) -> bool:
    """Whether the run has weights of its own already, which it will take up."""
    folder = config.run.dir
    return folder is not None and bool(Store(Path(folder) / "checkpoints").steps())


def _load(config: Config, model: nn.Module, source: str) -> None:
    section = config.transfer
    if config.initialization.name == "lsuv":
        raise ConfigError(
            "lsuv would scale the weights that are loaded (initialization.name: lsuv)",
            where="transfer.source",
            hint="choose another initialization",
        )
    model.to(getattr(torch, config.precision.dtype))  # before it, so that nothing is rounded
    found, where = find_weights(source)
    own = {n: t for n, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    result = match(
        {n: tuple(t.shape) for n, t in own.items()},
        {n: tuple(t.shape) for n, t in found.items()},
        section.match,
        section.rename,
        section.replace,
    )
    if not result.loaded:
        raise ConfigError(
            f"nothing to load fits the model (names here: {', '.join([*own][:3])}; "
            f"there: {', '.join([*found][:3])})",
            where=where,
            hint='map beginnings of names, such as transfer.rename = { "module." = "" }',
        )
    with torch.no_grad():
        for name, other in result.loaded.items():
            own[name].copy_(found[other])
    for line in result.lines(where):
        logger.info("%s", line)
    if result.missing or result.mismatched:
        logger.warning(
            "transfer: %d tensors of the model were not found there, and %d have another shape",
            len(result.missing),
            len(result.mismatched),
        )


def openings(config: Config, names: Sequence[str]) -> dict[str, int]:
    """After how many epochs parameters are trained, of those that are not from the first on."""
    section = config.transfer
    found: dict[str, int] = {}
    for epochs, patterns in section.unfreeze.items():
        for name in names:
            if any(fnmatchcase(name, pattern) for pattern in patterns):
                found[name] = min(int(epochs), found.get(name, int(epochs)))
    return found


class Unfreezing(Technique):
    """Lets parameters be trained from an epoch on.

    Until then they have no gradient, no update, no decay and no optimizer state: exactly as if
    they were constants (gradual unfreezing: Howard and Ruder, ULMFiT, ACL 2018).

    Args:
        learners: whose arenas have pieces for them, `Grouping.opens`.
        model: the network.
        opens: after how many epochs each is trained, >= 1.
    """

    name = "transfer"

    def __init__(
        self, learners: Sequence[Learner], model: nn.Module, opens: Mapping[str, int]
    ) -> None:
        self._opens = opens
        self._parameters = dict(model.named_parameters())
        pieces = [(a, p) for learner in learners for a in learner.arenas for p in a.pieces]
        self._pieces: list[tuple[Arena, Piece]] = [e for e in pieces if e[1].names[0] in opens]
        self._are_open = False

    def begin(self, batch: Batch) -> None:
        """Freeze or open them, as the epoch of the batch has it."""
        if self._are_open:
            return
        for arena, piece in self._pieces:
            is_open = self._opens[piece.names[0]] <= batch.epoch
            piece.flat.grad = arena.grad[piece.start : piece.stop] if is_open else None
            change = arena.frozen.difference_update if is_open else arena.frozen.update
            change(piece.names)
            for name in piece.names:
                self._parameters[name].requires_grad_(is_open)
        self._are_open = all(epochs <= batch.epoch for epochs in self._opens.values())


def make(config: Config, learners: Sequence[Learner], model: nn.Module) -> Technique | None:
    """The technique, if parameters are opened later."""
    opens = openings(config, [name for name, _ in model.named_parameters()])
    return Unfreezing(learners, model, opens) if opens else None
