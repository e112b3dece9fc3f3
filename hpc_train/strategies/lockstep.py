"""What strategies share whose ranks go from batch to batch together, and agree in each of them.

Rank 0 learns from the seconds of the step before and decides the plan that the next tally
announces, and that holds from the step after it.
"""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hpc_train.comm import Comm
from hpc_train.errors import NonFiniteError
from hpc_train.optim import clip_factor
from hpc_train.plan import Batch, Plan, Work
from hpc_train.record import operation, phase
from hpc_train.schedule import Claimed, Scheduler
from hpc_train.strategies.arena import Arena
from hpc_train.strategies.buffers import BufferSnapshot, merge_buffers
from hpc_train.strategies.claims import Claims
from hpc_train.strategies.learner import Learner
from hpc_train.strategies.reduction import Reduction
from hpc_train.strategies.reductions import Means, find_out, make_reductions
from hpc_train.strategies.tally import Layout, Tally, Total

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one phase of one global batch, the same on every rank.

    Attributes:
        total: the tally of all ranks.
        updated: whether the weights changed.
        norm: 2-norm of the mean gradient before clipping; NaN if it was not computed.
        finite: whether loss and gradient were finite.
        before: samples of each rank in the step before, which `total.busy_seconds` tells of; empty
            if there was none.
    """

    total: Total
    updated: bool
    norm: float
    finite: bool
    before: tuple[int, ...] = ()

    @property
    def culprit(self) -> str:
        """What is not finite, if something is not."""
        return "loss" if self.total.flags["non_finite"] else "gradient"

    def verdict(self, batch: Batch) -> str:
        """What is not finite where."""
        return f"{self.culprit} is not finite in batch {batch.number} of epoch {batch.epoch}"

    def problem(self, batch: Batch) -> NonFiniteError:
        """The error that the loss or the gradient of `batch` is not finite."""
        what = self.culprit
        value = self.total.mean_loss if what == "loss" else self.norm
        place = f"batch {batch.number} of epoch {batch.epoch}"
        return NonFiniteError(
            f"{what} must be finite ({what} of {place}: {value})",
            hint="lower optimizer.lr, set optimizer.clip_norm, "
            'or set optimizer.non_finite = "skip"',
        )


class LockStep:
    """Ranks that take one batch after the other, together; a step is one sum and one update.

    Attributes:
        plan: the shares in force.
        claims: what this rank may claim beyond its own samples; None where all is planned.
    """

    def __init__(
        self,
        comm: Comm,
        model: nn.Module,
        learners: Sequence[Learner],
        layout: Layout,
        scheduler: Scheduler,
        means: Means,
    ) -> None:
        self._number = 0
        self.claims: Claims | None = None
        self._model = model
        self._buffers = BufferSnapshot(model)
        self._samples = 0
        self._comm = comm
        self._learners = learners
        self._regroup(layout, scheduler)
        self._means = means
        self._decision = find_out(comm, learners, means)
        self._reductions = self._make_reductions()
        self._spread()

    def _regroup(self, layout: Layout, scheduler: Scheduler) -> None:
        """Make anew what depends on who the ranks are; collective. Weights stay as they are."""
        self.plan = scheduler.plan
        self._scheduler = scheduler
        self._announced = scheduler.plan  # rank 0: what the next tally says
        self._counts: tuple[int, ...] = ()  # samples of each rank in the present batch ...
        self._before: tuple[int, ...] = ()  # ... and in the one before
        self._layout = layout
        if self.claims is not None:
            self.claims.close()
        reserve = scheduler.reserve
        self.claims = None if reserve is None else Claims(self._comm, reserve)
        self._share_gradients()
        self._arrange()

    def work(self, batches: Iterator[Batch]) -> Iterator[Work]:
        """Which samples of which global batch are this rank's, as they are trained."""
        for batch in batches:
            self._number = batch.number
            self._before, self._counts = self._counts, self.plan.shares(batch.size)
            if self.claims is not None:
                self.claims.begin(self._counts)
            yield self._work(self.plan, batch)

    def foretell(self, batches: Iterator[Batch]) -> Iterator[Work]:
        """The same as the present plan has it, to read ahead; another thread may ask."""
        plan = self.plan
        return (self._work(plan, batch) for batch in batches)

    def _work(self, plan: Plan, batch: Batch) -> Work:
        if self.claims is None:
            return plan.work(batch, self._comm.world.rank)
        return self.claims.work(batch, plan.shares(batch.size))

    def begin(self, learner: Learner) -> None:
        """Get ready for the gradients of `learner`, and remember the model's buffers."""
        learner.begin()
        self._reductions[learner.name].begin(sum(self._counts))
        self._buffers.take()

    def begin_again(self, learner: Learner) -> None:
        """Forget the gradients, with the model's buffers as they were remembered.

        Raises:
            HpcTrainError: if other ranks know of some of them already.
        """
        self._reductions[learner.name].begin_again()
        learner.begin()
        self._buffers.restore()

    def release(self, phase: str) -> None:
        """The next backward pass of a phase is the last one of its step: sums may begin in it."""
        self._reductions[phase].release()

    def finish(self, learner: Learner, tally: Tally) -> Outcome:
        """One phase of a batch: agree on what the ranks report, update, and schedule.

        A rank that failed takes part with zeros and its flag; nobody updates then, nor when loss
        or gradient are not finite, and module buffers are as they were before the batch.
        """
        if self.claims is not None:
            self.claims.finish()
            self.claims.tell(tally)
        self._assemble()
        outcome = self._step(learner, tally)
        # a batch of several phases tells its seconds once, in the first of them
        measured = self._before if max(outcome.total.busy_seconds) > 0 else ()
        if measured and self._comm.world.is_coordinator:
            self._schedule(measured, outcome.total)
        return replace(outcome, before=self._done(measured, outcome.total))

    def _assemble(self) -> None:
        """Wait for the others asleep, where there are not cores enough."""
        self._comm.gate.pass_together(self._waited_for())

    def _waited_for(self) -> tuple[int, ...]:
        """The samples of each rank, where one without any may sleep; else nothing.

        It must not where it sums beside the others' backward passes, or claims samples of theirs.
        """
        overlaps = self._decision is not None and self._decision.overlap
        return () if overlaps or self.claims is not None else self._counts

    def _done(self, counts: tuple[int, ...], total: Total) -> tuple[int, ...]:
        """The samples that each rank had, where the plan gave it `counts`."""
        reserve = self._scheduler.reserve
        if not counts or reserve is None:
            return counts
        owned = reserve.cut(counts).owned
        return tuple(own + more for own, more in zip(owned, total.claimed, strict=True))

    def settle(self) -> None:
        """Merge module buffers, and check that all ranks hold equal weights.

        If weights drifted apart, rank 0's are taken, with a warning: replicas make the same
        updates from the same sums, so they differ only where their processors round differently.
        """
        for reduction in self._reductions.values():
            reduction.settle()
        merge_buffers(self._model, self._comm, self._samples)
        self._samples = 0
        digests = [zlib.crc32(arena.data.cpu().numpy().data) for arena in self._copied()]
        if any(other != digests for other in self._comm.gather(digests)):
            logger.warning("weights differ between ranks in their last bits; taking rank 0's")
            self._spread()

    def tensors(self) -> dict[str, torch.Tensor]:
        """What reductions must remember, by phase."""
        return {
            f"{place}/{name}": tensor
            for place, reduction in self._reductions.items()
            for name, tensor in reduction.tensors().items()
        }

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take up what `tensors` told."""
        for name, reduction in self._reductions.items():
            prefix = f"{name}/"
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            reduction.restore(own)

    def close(self) -> None:
        """Let go of the model: nothing waits for its gradients any more, nobody asks."""
        if self.claims is not None:
            self.claims.close()
        self._close_reductions()

    def _close_reductions(self) -> None:
        for reduction in self._reductions.values():
            reduction.close()

    def _step(self, learner: Learner, tally: Tally) -> Outcome:
        """Sum the gradients, agree, and make the same update on every rank."""
        if "failed" in tally.flags:
            learner.zero()
        with phase("communication", operation="reduce"):
            tally.squares = self._sum(learner)
            total = self._agree(tally)
        return self._conclude(learner, tally, total)

    def _conclude(self, learner: Learner, tally: Tally, total: Total) -> Outcome:
        """What all ranks do, once they have agreed on `total`."""
        if total.flags["failed"]:
            self._buffers.restore()
            return Outcome(total, updated=False, norm=math.nan, finite=True)
        if total.weight == 0:
            self._samples += tally.samples
            return Outcome(total, updated=False, norm=math.nan, finite=True)
        with phase("update"):
            norm = self._norm(learner, total) / total.weight
            finite = math.isfinite(norm) and not total.flags["non_finite"]
            if finite:
                self._update(learner, clip_factor(norm, learner.clip_norm) / total.weight)
                self._reductions[learner.name].commit()
                self._samples += tally.samples
            else:
                self._buffers.restore()
        return Outcome(total, updated=finite, norm=norm, finite=finite)

    def _sum(self, learner: Learner) -> float:
        """Sum the gradients; gives the squares of what this rank alone knows of the sum."""
        self._reduce(learner)
        return 0.0

    def _norm(self, learner: Learner, total: Total) -> float:
        """The norm of the summed gradient."""
        return learner.norm()

    def _update(self, learner: Learner, factor: float) -> None:
        """Update with `factor` times the summed gradient."""
        learner.update(factor)

    def _arrange(self) -> None:
        """Make anew what else depends on who the ranks are, and where gradients lie; collective."""

    def _make_reductions(self) -> dict[str, Reduction]:
        """How the gradients of each learner are summed, by its name; collective."""
        return make_reductions(self._comm, self._learners, self._means, self._decision)

    def _reduce(self, learner: Learner) -> None:
        """Sum the gradients of `learner` over all ranks, in place."""
        operation("reduce", sum(arena.grad.nbytes for arena in learner.arenas))
        self._reductions[learner.name].reduce()

    def _agree(self, tally: Tally) -> Total:
        return self._adopt(self._comm.sum(self._pack(tally)))

    def _pack(self, tally: Tally) -> NDArray[np.float64]:
        """This rank's part of what all agree on."""
        rank = self._comm.world.rank
        return self._layout.pack(tally, rank, self._announced if rank == 0 else None)

    def _adopt(self, vector: NDArray[np.float64]) -> Total:
        """What all have agreed on, and the plan from here on."""
        total = self._layout.unpack(vector)
        self._agreed(total, vector)
        if total.counts != self.plan.counts:
            self.plan = Plan(total.counts)
        return total

    def _agreed(self, total: Total, vector: NDArray[np.float64]) -> None:
        """What all ranks told, as soon as this one knows it."""

    def _schedule(self, counts: tuple[int, ...], total: Total) -> None:
        """Rank 0 learns from the step before and decides the plan from the batch after next on."""
        with phase("schedule"):
            claimed = Claimed(total.claimed, total.claimed_seconds) if total.claimed else None
            self._scheduler.observe(counts, total.busy_seconds, claimed)
            plan = self._scheduler.decide(self._number + 2)
            if plan is not None:
                logger.info("shares from batch %d on: %s", plan.since, plan.counts)
                self._announced = plan

    def _share_gradients(self) -> None:
        """Put the gradients where the other ranks of the node can read them, if all can."""
        arenas = [arena for learner in self._learners for arena in learner.arenas]
        if all(self._comm.gather(all(arena.grad.device.type == "cpu" for arena in arenas))):
            for arena in arenas:
                arena.move_gradients(self._comm.allocate)

    def _spread(self) -> None:
        """Give every rank the weights of rank 0."""
        for arena in self._copied():
            host = arena.data.detach().cpu().contiguous()
            host = host.clone() if arena.shared else host
            self._comm.spread(host.numpy())
            arena.write(lambda data, host=host: data.copy_(host))  # type: ignore[misc]

    def _copied(self) -> list[Arena]:
        """The arenas of which there is more than one copy among the ranks."""
        arenas = (arena for learner in self._learners for arena in learner.arenas)
        return [one for one in arenas if not one.shared or self._comm.world.num_nodes > 1]
