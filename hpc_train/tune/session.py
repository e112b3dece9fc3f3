"""One session of a study: from its folder to its end, on all ranks of the job."""

from __future__ import annotations

from contextlib import ExitStack

from hpc_train.comm import Comm
from hpc_train.record import Hook
from hpc_train.stop import StopFlag
from hpc_train.train.device import ready_device, set_threads
from hpc_train.tune.lead import Ended, Lead, Tell
from hpc_train.tune.member import Member
from hpc_train.tune.prepare import Prepared
from hpc_train.world import on_coordinator, together


def run(
    prepared: Prepared,
    comm: Comm,
    stop: StopFlag,
    *,
    hooks: tuple[Hook, ...] = (),
    tell: Tell = lambda trial, history: None,
) -> Ended:
    """Search until all trials are finished, the time is up or `stop` is raised.

    A study that was begun before goes on: finished trials are kept, others are continued.

    Args:
        prepared: the study; the same on all ranks.
        comm: all ranks of the job.
        stop: raised when all trials shall be saved.
        hooks: listeners to the phases of this rank.
        tell: hears of each trial that is finished, on rank 0.

    Raises:
        RankError: on every rank, if the folder holds another study or cannot be written.
    """
    base = prepared.config({})
    device = together(comm, lambda: ready_device(base, comm))
    threads = set_threads(base.device.threads, comm, base.schedule.reserve)
    member = Member(prepared, comm, device, threads, stop, hooks)
    with ExitStack() as stack:
        lead: list[Lead] = []
        on_coordinator(comm, lambda: lead.append(Lead(prepared, comm, member, stop, tell, stack)))
        member.lead = lead[0] if lead else None
        order = member.serve()
        if lead:
            lead[0].leave()
    if order["lost"]:
        comm.shrink()
        order = comm.broadcast(order)
    return Ended(
        **{key: order[key] for key in ("status", "exit_code", "finished", "total", "lost")}
    )
