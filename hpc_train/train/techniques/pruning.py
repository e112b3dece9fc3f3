"""Pruning while training: masks that grow by a schedule, and are applied after each update."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from hpc_train.augment.dropout import KeyedDropout
from hpc_train.compress import Gradual, Pruner, make_pruner
from hpc_train.compress.pruning import Rule, digest
from hpc_train.compress.pruning.sensitivity import Scan, Sensitivity
from hpc_train.config import Config
from hpc_train.errors import ConfigError
from hpc_train.plan import Batch, Every
from hpc_train.strategies import Arena, Learner, Tally
from hpc_train.train.survey import Survey
from hpc_train.train.technique import Technique
from hpc_train.train.wanted import check_meets
from hpc_train.world import Group

logger = logging.getLogger(__name__)

_MASK, _SQUARE, _REWIND = "mask/", "square/", "rewind/"
_SHARE = 0.02  # of a new gradient's square in the running mean


@dataclass(frozen=True)
class Course:
    """When what happens.

    Attributes:
        schedule: of pruning.
        metric, floor: pruning ends once the metric is below the floor; None for no floor.
        rewind: the batch after which weights are kept, to which those that stay are set back each
            time; None for no rewinding.
    """

    schedule: Gradual
    metric: str = "accuracy"
    floor: float | None = None
    rewind: int | None = None


class Pruning(Technique):
    """Keeps pruned weights at zero, and prunes more when it is due.

    All ranks decide alike from equal weights; should their masks differ all the same, as where
    hardware rounds differently, those of rank 0 hold.

    Args:
        pruner: which weights go.
        course: when.
        learners: whose weights are pruned.
        group: the ranks.
        loss: of the model as it is, the same on all ranks; for rules that measure layers.
    """

    name = "pruning"

    def __init__(
        self,
        pruner: Pruner,
        course: Course,
        learners: Sequence[Learner],
        group: Group,
        loss: Callable[[], float] | None = None,
    ) -> None:
        self._pruner, self._course = pruner, course
        self._learners, self._group, self._loss = learners, group, loss
        self._batch = 0
        self._last = -1  # the due batch up to which pruning was done
        self._stopped = False
        homes = [(arena, name) for ln in learners for arena in ln.arenas for name in arena.places]
        weights = {name: arena.view(arena.data, name) for arena, name in homes}
        missing = [name for name in pruner.names if name not in weights]
        if missing:
            raise ConfigError(
                f"what is pruned must be trained ({missing[0]} is not)", where="compress.prune"
            )
        self._masks = {
            name: torch.ones_like(weights[name], dtype=torch.bool) for name in pruner.names
        }
        wants = pruner.names if pruner.wants_gradients else ()
        self._squares = {name: torch.zeros_like(weights[name]) for name in wants}
        keeps = course.rewind is not None
        self._start = {n: w.detach().clone() for n, w in weights.items()} if keeps else {}
        self._is_kept = course.rewind == 0
        self._sparsity = 0.0

    def begin(self, batch: Batch) -> None:
        """Learn where the run is, and what layers can bear when pruning is about to begin.

        Not after the update: if a rank dies while layers are measured, the batch is done again.
        """
        self._batch = batch.number
        if self._is_due() and isinstance(self._pruner, Sensitivity) and self._pruner.table is None:
            self._scan(self._pruner)

    def gradients(self, learner: Learner, tally: Tally) -> None:
        """What is pruned has no gradient."""
        for arena, name in self._own(learner):
            arena.view(arena.grad, name).mul_(self._masks[name])

    def updated(self, learner: Learner) -> None:
        """Prune what is due, and keep at zero what is pruned."""
        self._remember(learner)
        changed = self._is_due()
        if changed:
            self._prune()
        for one in self._learners if changed else (learner,):
            for arena in one.arenas:
                arena.write(lambda data, arena=arena: self._apply(data, arena))  # type: ignore[misc]

    def evaluated(self, batch: int, metrics: Mapping[str, float]) -> str | None:
        """Stop pruning for good where the metric has fallen below the floor."""
        floor, metric = self._course.floor, self._course.metric
        is_over = self._stopped or self._last >= self._course.schedule.end or self._last < 0
        if floor is not None and not is_over and metrics[metric] < floor:
            self._stopped = True
            logger.info(
                "%s is below its floor (%.6g < %.6g): pruning ends at batch %d with %.1f %%",
                metric,
                metrics[metric],
                floor,
                batch,
                100 * self._sparsity,
            )
        return None

    def report(self) -> Mapping[str, float]:
        """Which part of the weights is gone."""
        return {"sparsity": self._sparsity}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Masks, mean squares of gradients, weights to go back to."""
        found = {_MASK + name: mask for name, mask in self._masks.items()}
        found |= {_SQUARE + name: square for name, square in self._squares.items()}
        return found | {_REWIND + name: weights for name, weights in self._start.items()}

    def notes(self) -> dict[str, Any]:
        """How far pruning is."""
        found = {"last": self._last, "stopped": self._stopped, "is_kept": self._is_kept}
        table = self._pruner.table if isinstance(self._pruner, Sensitivity) else None
        return found if table is None else {**found, "scan": table.json()}

    def restore(self, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]) -> None:
        """Take up what `tensors` and `notes` told; what they do not know begins anew."""
        for prefix, own in (
            (_MASK, self._masks),
            (_SQUARE, self._squares),
            (_REWIND, self._start),
        ):
            for name, tensor in own.items():
                if prefix + name in tensors:
                    tensor.copy_(tensors[prefix + name])
        if notes:
            self._last, self._stopped = int(notes["last"]), bool(notes["stopped"])
            self._is_kept = bool(notes["is_kept"])
        if isinstance(self._pruner, Sensitivity):
            self._pruner.table = Scan.from_json(notes["scan"]) if "scan" in notes else None
        self._sparsity = _sparsity(self._masks)

    def _own(self, learner: Learner) -> list[tuple[Arena, str]]:
        return [(arena, n) for arena in learner.arenas for n in arena.places if n in self._masks]

    def _remember(self, learner: Learner) -> None:
        """Mean squares of gradients, and the weights to go back to once they are reached."""
        if self._last < self._course.schedule.end:
            for arena, name in self._own(learner) if self._squares else ():
                grad = arena.view(arena.grad, name)
                self._squares[name].mul_(1 - _SHARE).addcmul_(grad, grad, value=_SHARE)
        rewind = self._course.rewind
        if rewind is not None and not self._is_kept and self._batch + 1 >= rewind:
            for name, weights in self._weights().items():
                self._start[name].copy_(weights)
            self._is_kept = True

    def _weights(self) -> dict[str, torch.Tensor]:
        arenas = [arena for learner in self._learners for arena in learner.arenas]
        return {name: a.view(a.data, name) for a in arenas for name in a.places}

    def _is_due(self) -> bool:
        """Whether the update of the present batch is followed by pruning."""
        due = self._course.schedule.due(self._batch)
        return due is not None and due > self._last and not self._stopped

    def _prune(self) -> None:
        """New masks, the same on all ranks, and where asked for the weights of before."""
        due = self._course.schedule.due(self._batch)
        assert due is not None, "`_is_due` has found one"
        part = self._course.schedule.part(due)
        with torch.no_grad():
            masks = self._pruner.masks(self._masks, self._squares, part)
        self._agree(masks)
        self._last, before = due, self._sparsity
        self._sparsity = _sparsity(self._masks)
        if self._start and self._sparsity > before:
            self._go_back()

    def _scan(self, pruner: Sensitivity) -> None:
        """Measure what each layer can bear, all ranks together."""
        assert self._loss is not None
        measure, weights = self._loss, self._weights()

        def trial(masks: Mapping[str, torch.Tensor]) -> float:
            masked = {name: weights[name] * mask for name, mask in masks.items()}
            with ExitStack() as stack:
                for learner in self._learners:
                    for arena in learner.arenas:
                        stack.enter_context(arena.lend(masked))
                return measure()

        table = pruner.scan(trial)
        if self._group.world.is_coordinator:
            for row in table.rows(pruner.amount):
                logger.info("%s", "  ".join(row))

    def _agree(self, masks: Mapping[str, torch.Tensor]) -> None:
        for name, mask in masks.items():
            self._masks[name].copy_(mask)
        hashes = self._group.gather(digest(self._masks))
        if len(set(hashes)) == 1:
            return
        packed = self._group.broadcast({name: _packed(mask) for name, mask in self._masks.items()})
        for name, mask in self._masks.items():
            mask.copy_(_unpacked(packed[name], mask))
        if self._group.world.is_coordinator:
            logger.warning("ranks round differently: the masks of rank 0 hold for all of them")

    def _go_back(self) -> None:
        """To the weights of before, and to optimizers that have seen nothing.

        Frankle et al., "Linear mode connectivity and the lottery ticket hypothesis", ICML 2020.
        """
        for learner in self._learners:
            for arena in learner.arenas:
                arena.write(lambda data, arena=arena: self._reset(data, arena))  # type: ignore[misc]
            learner.forget()

    def _reset(self, data: torch.Tensor, arena: Arena) -> None:
        for name in arena.places:
            arena.view(data, name).copy_(self._start[name])

    def _apply(self, data: torch.Tensor, arena: Arena) -> None:
        for name in arena.places:
            if name in self._masks:
                arena.view(data, name).mul_(self._masks[name])


def _sparsity(masks: Mapping[str, torch.Tensor]) -> float:
    stays = sum(int(mask.count_nonzero()) for mask in masks.values())
    return 1 - stays / sum(mask.numel() for mask in masks.values())


def _packed(mask: torch.Tensor) -> str:
    """A mask as text, 8 weights to a byte."""
    return base64.b64encode(np.packbits(mask.cpu().numpy().reshape(-1)).tobytes()).decode()


def _unpacked(text: str, like: torch.Tensor) -> torch.Tensor:
    bits = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    mask = np.unpackbits(bits, count=like.numel()).astype(bool)
    return torch.from_numpy(mask).view(like.shape)


def make(
    config: Config,
    plan: Survey,
    model: nn.Module,
    learners: Sequence[Learner],
    group: Group,
    loss: Callable[[int], Callable[[], float]],
) -> Technique | None:
    """The technique, if the configuration says how to prune.

    Args:
        loss: gives what measures the loss of a number of samples.

    Raises:
        ConfigError: if the model has nothing to prune so, or what else is asked for would undo it.
    """
    section = config.compress
    if section.prune == "none":
        if section.floor is not None or section.rewind is not None:
            raise ConfigError(
                'compress.floor and compress.rewind need compress.prune (compress.prune: "none")',
                where="compress.prune",
                hint="say how to prune, or leave them out",
            )
        return None
    _check(config)
    total = plan.num_batches
    every = Every.parse(section.every)
    unit = plan.course.per_epoch if every.unit == "epochs" else 1
    schedule = Gradual(
        int(section.begin * total), int(section.end * total), every.count * unit, section.amount
    )
    rewind = None if section.rewind is None else int(section.rewind * total)
    weight = next(model.parameters())
    shape = tuple(plan.input_shape or ())
    keep, of = section.keep_of
    rule = Rule(
        model,
        torch.zeros((1, *shape), dtype=weight.dtype, device=weight.device),
        section.amount,
        keep,
        of,
        section.channel_multiple,
        (KeyedDropout,),
    )
    course = Course(schedule, section.floor_metric, section.floor, rewind)
    measure = loss(section.scan_samples) if section.prune == "sensitivity" else None
    return Pruning(make_pruner(section.prune, rule), course, learners, group, measure)


def _check(config: Config) -> None:
    """Refuse what would bring pruned weights back."""
    check_meets(config, "compress.prune")
    others = {
        "regularization.ema_decay": config.regularization.ema_decay is not None,
        "regularization.swa_start": config.regularization.swa_start is not None,
        "early_stopping.restore_best": config.early_stopping.metric is not None
        and config.early_stopping.restore_best,
    }
    for key, is_on in others.items():
        if is_on:
            raise ConfigError(
                f"{key} would bring back what is pruned (compress.prune: {config.compress.prune})",
                where=key,
                hint=f"leave one of the two out, or set {key}=false"
                if key.endswith("best")
                else "leave one of the two out",
            )
    if config.compress.prune == "channels" and len(config.data.inputs) != 1:
        raise ConfigError(
            f"channels are pruned in models of one input (data.inputs: {config.data.inputs})",
            where="compress.prune",
        )
