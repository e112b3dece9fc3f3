"""Ranks that die: what MPI's fault tolerance (ULFM) tells of them, and how to go on without.

    rank 0      Allreduce -> PROC_FAILED    revoke all communicators    shrink    new communicators
    rank 1      killed
    rank 2      Barrier -> REVOKED          (wakes up)                  shrink    new communicators

Whoever sees a failure revokes every communicator: with one of them left, survivors that wait in it
would wait for ever. Standard: W. Bland, A. Bouteiller, T. Herault, G. Bosilca, J. Dongarra,
"Post-failure recovery of MPI communication capability", IJHPCA 27 (2013).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpi4py import MPI


_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Lost:
    """A rank that is gone.

    Attributes:
        rank: its number at the beginning of the job.
        host: its node.
    """

    rank: int
    host: str

    def __str__(self) -> str:
        return f"rank {self.rank} on {self.host}"


def tolerant(environ: Mapping[str, str], mpi: Any) -> bool:
    """Whether this MPI survives the death of a rank: it must be able to, and be told to.

    Open MPI's launcher tells its ranks so by a variable (`mpirun --with-ft ulfm`).
    """
    asked = environ.get("OMPI_MCA_mpi_ft_enable", "0").lower() in ("1", "true", "yes")
    return asked and str(mpi.get_vendor()[0]) == "Open MPI"


def is_failure(mpi: Any, error: BaseException) -> bool:
    """Whether `error` is MPI's word that a rank died, or that another one has heard so."""
    if not isinstance(error, mpi.Exception):
        return False
    kinds = (mpi.ERR_PROC_FAILED, mpi.ERR_PROC_FAILED_PENDING, mpi.ERR_REVOKED)
    return error.Get_error_class() in kinds


def is_known(mpi: Any, communicators: Sequence[MPI.Comm], seconds: float) -> bool:
    """Whether MPI hears within `seconds` that a rank died, or that another one has heard so.

    An operation that a death interrupts may fail with an error that does not say so: Open MPI 5
    sometimes gives MPI_ERR_OTHER, before the news of the death itself is in.
    """
    until = time.monotonic() + seconds
    while True:
        for communicator in communicators:
            try:
                communicator.Iprobe()  # lets MPI look for news
                communicator.Ack_failed()
                failed = communicator.Get_failed()
                num_failed = failed.Get_size()
                failed.Free()
                if num_failed:
                    return True
            except mpi.Exception as error:
                if is_failure(mpi, error):
                    return True
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_SECONDS)


def revoke(communicators: Iterable[MPI.Comm]) -> None:
    """Let every operation on these communicators fail, on all ranks."""
    for communicator in communicators:
        if not communicator.Is_revoked():
            communicator.Revoke()


def shrink(mpi: Any, base: MPI.Intracomm) -> tuple[MPI.Intracomm, list[int]]:
    """A communicator of the survivors, and the ranks that they had in `base`."""
    rest: Any = base.Shrink()  # mpi4py knows it as a Comm only
    ranks = mpi.Group.Translate_ranks(
        rest.Get_group(), list(range(rest.Get_size())), base.Get_group()
    )
    return rest, list(ranks)


def missing(hosts: Sequence[str], members: Sequence[int], survivors: Sequence[int]) -> list[Lost]:
    """Who is gone.

    Args:
        hosts: the key of each rank's node, before.
        members: the number of each rank at the beginning of the job, before.
        survivors: the ranks, as they were numbered before, that are left.
    """
    gone = set(range(len(members))) - set(survivors)
    return [Lost(members[r], hosts[r].partition("/")[0]) for r in sorted(gone)]
