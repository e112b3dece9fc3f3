"""Going on without ranks that died: the loop's side of the fault-tolerant MPI.

    a rank dies in the middle of batch t; the others, wherever they were:

    1 shrink      revoke all communicators, make new ones without it        comm
    2 report      end an update that all had agreed on                      strategies
                  where is everybody; agree on the last committed step      recovery.policy (pure)
    3 catch up    who is behind gets the state of one that is not
    4 regroup     arenas, collectives, plan for the ranks that are left      strategies
    5 tell        rank 0, perhaps a new one, goes on with the records
                  and all repeat batch t with all its samples

Whoever dies meanwhile is met by beginning again at 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from hpc_train.errors import LostRanksError, LostStateError
from hpc_train.observe import Sink
from hpc_train.record import phase
from hpc_train.recovery.policy import Decision, Report, decide
from hpc_train.recovery.vigil import Vigil
from hpc_train.strategies import Regroupable
from hpc_train.train import state
from hpc_train.train.build import Parts, make_layout, make_scheduler
from hpc_train.train.device import set_threads
from hpc_train.train.place import heard, told
from hpc_train.train.respawn import Respawn, hold_forks
from hpc_train.world import Json

if TYPE_CHECKING:
    from hpc_train.train.loop import Loop

logger = logging.getLogger(__name__)

# gives the sinks of a rank 0 that goes on at a batch, and the batch of the last step on record
Heir = Callable[[int], tuple[Sequence[Sink], int]]


class Survival:
    """Takes a run up again after ranks were lost.

    Args:
        min_ranks: how many must be left.
        heir: makes the sinks of a rank that becomes rank 0.
        vigil: watches the ranks; None if nobody does.
        respawn: starts others in place of those that died; None to do without them.
    """

    def __init__(
        self, min_ranks: int, heir: Heir, vigil: Vigil | None, respawn: Respawn | None
    ) -> None:
        self._min_ranks = min_ranks
        self._heir = heir
        self._vigil = vigil
        self._respawn = respawn

    def flags(self) -> set[str]:
        """What this rank tells the others in the tally of a step."""
        return {"join"} if self._respawn is not None and self._respawn.look() else set()

    def admit(self, loop: Loop) -> None:
        """Between two steps, let a replacement that is ready take part; collective.

        Raises:
            Exception: one that `Comm.is_lost` knows, if a rank died meanwhile: then `go_on`.
        """
        assert self._respawn is not None
        comm = loop.parts.comm
        loop.saving.finish()
        with phase("recovery", operation="admit"):
            number = self._respawn.admit()
            if number is None:
                return
            decision = self._meet(loop)
        text = f"rank {number} is replaced from batch {decision.batch} on"
        if comm.world.is_coordinator:
            logger.info("%s: going on with %d ranks", text, comm.world.size)
        loop.tell_event("joined", f"{text}: going on with {comm.world.size} ranks")

    def join(self, loop: Loop) -> None:
        """Take part from where the others are, as a replacement; their `admit`.

        Raises:
            Exception: one that `Comm.is_lost` knows, if a rank died meanwhile: then `go_on`.
        """
        with phase("recovery", operation="join"):
            loop.parts.comm.join()
            self._meet(loop)

    def close(self) -> None:
        """Let a replacement that has not joined end."""
        if self._respawn is not None:
            self._respawn.close()

    def go_on(self, loop: Loop) -> None:
        """Bring this rank and all survivors to the same place; collective among them.

        Raises:
            LostRanksError: on all of them, if too few are left; they are in the same place, too.
            LostStateError: on all of them, if the newest state is lost with those that died.
        """
        comm = loop.parts.comm
        known = len(comm.lost)
        for attempts_left in reversed(range(comm.num_members + 1)):  # each needs another death
            try:
                with phase("recovery", operation="shrink"):
                    comm.shrink()
                    loop.rejoin()
                    decision = self._meet(loop)
                break
            except Exception as error:
                if not attempts_left or not comm.is_lost(error):
                    raise
        who = " and ".join(map(str, comm.lost[known:])) or "a replacement"
        text = f"{who} lost in batch {decision.batch}"
        left = f"{comm.world.size} rank{'s' if comm.world.size > 1 else ''}"
        if not decision.enough:
            raise LostRanksError(
                f"{text}: {left} left, recovery.min_ranks is {self._min_ranks}",
                hint="the state is saved: start the run again with --resume",
            )
        if comm.world.is_coordinator:
            logger.info("%s: going on with %s", text, left)
        loop.tell_event("lost", f"{text}: going on with {left}")

    def _meet(self, loop: Loop) -> Decision:
        parts, place = loop.parts, loop.place
        strategy = _regroupable(parts)
        ended = strategy.recover(is_open=place.open)
        place.open = False
        if ended is not None:
            loop.commit(*ended)
        # seconds of ranks that are gone are of no use to those that are left
        place.outcomes = [replace(outcome, before=()) for outcome in place.outcomes]
        mine = Report(
            loop.batch,
            len(place.outcomes),
            place.looked_up,
            place.leaving,
            place.whole,
            place.fresh,
        )
        reports = [Report(**report) for report in parts.comm.gather(asdict(mine))]
        decision = decide(reports, self._min_ranks)
        if decision.source is None:
            lost = parts.comm.lost
            raise LostStateError(
                f"no rank that is left holds a whole state (lost: {', '.join(map(str, lost))})",
                hint="start the run again from its last checkpoint with --resume",
            )
        step, records = self._catch_up(loop, decision, decision.source)
        place.looked_up, place.leaving = decision.looked_up, decision.leaving
        parts.techniques.restore(parts.techniques.tensors(), place.techniques)
        if decision.renewed:
            config = parts.config
            parts.threads = set_threads(config.device.threads, parts.comm, config.schedule.reserve)
        self._regroup(parts)
        if self._vigil is not None:
            self._vigil.renew()
        sinks = self._tell(loop, decision, records)
        loop.resume(decision.batch, step, sinks)
        return decision

    def _catch_up(
        self, loop: Loop, decision: Decision, source: int
    ) -> tuple[int, list[dict[str, Any]]]:
        """Give all the place of `source`, and its state to those behind; step and records."""
        parts, place = loop.parts, loop.place
        known = {
            "step": loop.step,
            "outcomes": told(place.outcomes),
            "techniques": place.techniques,
            "done": place.done,
            "records": list(place.recent),
            "loop": loop.document() if decision.renewed else None,
        }
        known = parts.comm.broadcast(known, source)
        place.done = known["done"]
        if decision.behind:
            behind = parts.comm.world.rank in decision.behind
            place.whole = place.whole and not behind
            state.catch_up(parts, source, known["techniques"], behind=behind)
            if behind:
                place.outcomes = heard(known["outcomes"])
                place.techniques = known["techniques"]
                place.recent.clear()
                place.recent.extend(known["records"])
                if place.fresh:
                    loop.take_up(known["loop"])
                place.whole, place.fresh = True, False
                # so that this position is told if yet another rank dies now
                loop.batch, loop.step = decision.batch, known["step"]
        return int(known["step"]), known["records"]

    def _regroup(self, parts: Parts) -> None:
        config, world = parts.config, parts.comm.world
        parts.scheduler = make_scheduler(config, parts.comm.members, parts.rates.num_batches)
        layout = make_layout(parts.task, parts.scheduler, world.size)
        _regroupable(parts).regroup(layout, parts.scheduler)

    def _tell(
        self, loop: Loop, decision: Decision, records: Sequence[dict[str, Any]]
    ) -> Sequence[Sink]:
        """Let rank 0 have sinks that know of every step up to here."""
        if not loop.parts.comm.world.is_coordinator:
            return []
        sinks: Sequence[Sink] = loop.records.sinks
        if not sinks:
            sinks, loop.place.told = self._heir(decision.batch)
        for record in records:
            if loop.place.told < int(record["batch"]) <= decision.batch:
                loop.place.told = int(record["batch"])
                for sink in sinks:
                    sink.record(record)
        return sinks


def make_survival(
    parts: Parts, heir: Heir, vigil: Vigil | None, document: Callable[[], Json]
) -> Survival | None:
    """What lets a run survive the death of ranks; None if it is not wanted or not to be had.

    Collective, but for a rank that replaces another one.

    Args:
        parts: the run.
        heir: makes the sinks of a rank that becomes rank 0.
        vigil: watches the ranks; None if nobody does.
        document: what a replacement is told.
    """
    section = parts.config.recovery
    able = parts.comm.fault_tolerant and isinstance(parts.strategy, Regroupable)
    if not (section.shrink and able):
        return None
    respawn = None
    if section.respawn:
        respawn = Respawn(parts.comm, document, hold_forks(parts.comm))
    return Survival(section.min_ranks, heir, vigil, respawn)


def _regroupable(parts: Parts) -> Regroupable:
    assert isinstance(parts.strategy, Regroupable), "make_survival has checked it"
    return parts.strategy
