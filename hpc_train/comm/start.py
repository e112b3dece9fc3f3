"""How a rank begins: MPI is started, and the others are met."""

from __future__ import annotations

from hpc_train.comm import replacement
from hpc_train.comm.communicator import Comm
from hpc_train.errors import SetupError
from hpc_train.leaving import arrive


def connect() -> Comm:
    """Start MPI and meet the others; a replacement of one is alone until it `join`s them.

    Raises:
        SetupError: if no MPI library can be loaded.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise SetupError(
            f"no MPI library can be loaded: {str(error).splitlines()[0]}",
            hint="pip install 'hpc-train[mpi]', or load the site's MPI (module load openmpi)",
        ) from error
    arrive()
    invited = replacement.invitation(MPI)
    if invited is None:
        return Comm(MPI, MPI.COMM_WORLD)
    comm = Comm(MPI, MPI.COMM_SELF)
    comm.invitation, comm.members = invited, (invited.number,)
    comm.num_members = invited.num_members
    return comm
