"""What the environment says about who started this process; pure functions over a mapping.

Ranks are never read from here: the communicator says who a rank is. What launchers claim serves
to tell whether there is a launcher at all, and whether the MPI library understood it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpc_train.errors import SetupError

# Slurm numbers its special steps (interactive shell, batch script, extern) from here upwards.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class Launched:
    """The claim of a launcher that this process is one of its ranks.

    Attributes:
        kind: "openmpi", "hydra" (MPICH and Intel MPI; its proxies may run below srun), "srun",
            "pmi" or "pmix" (another launcher that speaks PMI or PMIx).
        size: number of ranks it claims to have started; None if it does not say.
        rank: the rank it claims for this process, for messages alone; None if it does not say.
        version: the launcher's version, such as "5.0.11"; None if it does not say.
    """

    kind: str
    size: int | None
    rank: int | None
    version: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something wrong with how a process was started, and what to do instead."""

    message: str
    hint: str

    def error(self) -> SetupError:
        """The same as an error to raise."""
        return SetupError(self.message, hint=self.hint)


def under_launcher(environ: Mapping[str, str]) -> Launched | None:
    """Which launcher says that this process is a rank of it; None in a plain process.

    A shell that `srun --pty` or `salloc` opened on a compute node is a plain process.
    """
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return Launched(
            "openmpi",
            _number(environ, "OMPI_COMM_WORLD_SIZE"),
            _number(environ, "OMPI_COMM_WORLD_RANK"),
            environ.get("OMPI_VERSION"),
        )
    if "PMI_SIZE" in environ and ("MPI_LOCALNRANKS" in environ or "HYDI_CONTROL_FD" in environ):
        return Launched("hydra", _number(environ, "PMI_SIZE"), _number(environ, "PMI_RANK"))
    if _is_slurm_shell(environ):
        return None
    if _is_slurm_task(environ):
        size = _number(environ, "SLURM_STEP_NUM_TASKS")
        return Launched("srun", size, _number(environ, "SLURM_PROCID"))
    if "PMI_SIZE" in environ:
        return Launched("pmi", _number(environ, "PMI_SIZE"), _number(environ, "PMI_RANK"))
    if "PMIX_RANK" in environ:
        return Launched("pmix", None, _number(environ, "PMIX_RANK"))
    return None


def separate_worlds(
    environ: Mapping[str, str], size: int, vendor: str | None = None
) -> Problem | None:
    """The state in which each of N processes believes to be the only rank, if this is it.

    The launcher and the MPI library then do not understand each other: every process forms a
    world of its own, silently, and all of them would train the same model into the same files.

    Args:
        environ: the environment of this process.
        size: ranks in `MPI_COMM_WORLD`, >= 1.
        vendor: the vendor of the MPI library, such as "Open MPI", if it is known.
    """
    launched = under_launcher(environ)
    if size != 1 or launched is None or launched.size is None or launched.size < 2:
        return None
    started = "srun" if launched.kind == "srun" else "the launcher"
    library = vendor or "the MPI library"
    return Problem(
        f"every rank must be in one world ({started} started {launched.size} ranks, and "
        f"{library} sees a world of size 1 in each of them)",
        _remedy(launched, vendor),
    )


def _remedy(launched: Launched, vendor: str | None) -> str:
    """What to start instead."""
    own = f"hpc-train run -n {launched.size} finds the mpirun that fits"
    if launched.kind == "srun":
        flag = {"Open MPI": "pmix", "MPICH": "pmi2", "Intel MPI": "pmi2"}.get(vendor or "")
        step = (
            f"srun --mpi={flag}"
            if flag
            else "srun --mpi=pmix for Open MPI, srun --mpi=pmi2 for MPICH or Intel MPI"
        )
        return f"{step} (srun --mpi=list names what there is); or, inside sbatch, {own}"
    library = vendor or "the library that Python loads (hpc-train doctor names it)"
    return f"start with the mpirun of {library}: {own}"


def _is_slurm_task(environ: Mapping[str, str]) -> bool:
    """Whether this is a task of an ordinary step of Slurm."""
    step = _number(environ, "SLURM_STEP_ID")
    return step is not None and step < _FIRST_SPECIAL_STEP and "SLURM_STEP_NUM_TASKS" in environ


def _is_slurm_shell(environ: Mapping[str, str]) -> bool:
    """Whether Slurm opened a shell for one user in this process (or one above it)."""
    tasks = _number(environ, "SLURM_STEP_NUM_TASKS")
    return tasks == 1 and ("SLURM_PTY_PORT" in environ or not _is_slurm_task(environ))


def _number(environ: Mapping[str, str], name: str) -> int | None:
    """The non-negative integer in a variable; None if there is none."""
    text = environ.get(name, "").strip()
    return int(text) if text.isdigit() else None
