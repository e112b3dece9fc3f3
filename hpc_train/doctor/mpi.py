"""MPI: which library, what it can do, and whether the launcher fits it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

from hpc_train.comm.facts import mpi_facts
from hpc_train.doctor.check import FAIL, OK, WARN, Check, Facts, Report, Request, differing
from hpc_train.errors import SetupError
from hpc_train.launch import Probe, probe, under_launcher
from hpc_train.launch.machine import this_machine
from hpc_train.launch.mpirun import REMEDY, Launcher, fit, fitting, launchers, plain_network

# which libraries the launchers that name themselves can start
_VENDORS = {"openmpi": ("Open MPI",), "hydra": ("MPICH", "Intel MPI", "MVAPICH", "Cray MPI")}


def facts(request: Request) -> Facts:
    """The library and the launcher; alone, the library is started in a child process only."""
    launched = under_launcher(os.environ)
    if not request.alone:
        return {
            "library": mpi_facts(),
            "problem": None,
            "missing": False,
            "launched": asdict(launched) if launched else None,
        }
    found = list(launchers(os.environ))
    fast = this_machine(os.environ).fast_network
    settings = {} if fast else {k: v for item in found for k, v in plain_network(item).items()}
    answer = probe({**settings, **os.environ}, start=True)
    chosen, problem = _chosen(found, answer)
    return {
        "library": answer.facts,
        "problem": answer.problem,
        "missing": answer.missing,
        "launched": None,
        "first": _launcher(found[0]) if found else None,
        "first_fits": bool(found and answer.facts and fit(found[0], answer.facts)),
        "chosen": _launcher(chosen) if chosen else None,
        "launcher_problem": problem,
    }


def _chosen(found: list[Launcher], answer: Probe) -> tuple[Launcher | None, list[str | None]]:
    """The launcher that `run -n` would take, or what is wrong and the remedy."""
    if answer.facts is None:
        return None, ["no library to find a launcher for", REMEDY]
    try:
        return fitting(found, answer), []
    except SetupError as error:
        return None, [error.message, error.hint]


def _launcher(launcher: Launcher) -> Facts:
    return {**asdict(launcher), "name": str(launcher)}


def checks(report: Report) -> list[Check]:
    """Library, threads, fault tolerance, GPU memory and launcher."""
    mine = report.of("mpi")[0]
    if mine["library"] is None:
        return [_absent(mine)]
    library = mine["library"]
    gpus = any(gpu["gpus"] for gpu in report.of("gpus"))
    launcher = _started_by(mine) if mine["launched"] else _would_start(mine)
    found = [_library(report), _threads(library), _fault_tolerance(library)]
    return [*found, _gpu_memory(library, gpus), *([launcher] if launcher else [])]


def _absent(mine: Facts) -> Check:
    """No library, or one that does not start here."""
    if mine["missing"]:
        return Check("MPI library", FAIL, f"none can be loaded: {mine['problem']}", REMEDY)
    return Check(
        "MPI library",
        WARN,
        f"{mine['problem']} outside a launcher",
        "sites may forbid MPI on login nodes: try hpc-train doctor on a compute node "
        "(srun --pty), or under mpirun",
    )


def _library(report: Report) -> Check:
    """The same library everywhere."""
    names = [
        f"{facts['library']['vendor']} {facts['library']['vendor_version']}"
        for facts in report.of("mpi")
    ]
    mixed = differing(names)
    if mixed:
        hint = "load the same modules and Python environment on every node"
        return Check("MPI library", FAIL, f"all ranks must load the same one ({mixed})", hint)
    library = report.of("mpi")[0]["library"]
    return Check(
        "MPI library", OK, f"{names[0]}, MPI {library['standard']}, {library['path'] or 'no path'}"
    )


def _threads(library: Facts) -> Check:
    level = str(library["thread_level"])
    if level == "multiple":
        return Check("MPI threads", OK, "multiple: any thread may communicate")
    hint = "use an MPI that is built with thread support, and leave MPI4PY_RC_THREADS alone"
    return Check("MPI threads", WARN, f"{level}: threads cannot communicate beside another", hint)


def _fault_tolerance(library: Facts) -> Check:
    if not library["ulfm"]:
        text = "none: when a rank is lost the job ends and resumes from its checkpoint"
    elif library["ulfm_started"]:
        text = "ULFM, and this job was started with it"
    else:
        text = "ULFM, for jobs started with mpirun --with-ft ulfm"
    return Check("fault tolerance", OK, text)


def _gpu_memory(library: Facts, gpus: bool) -> Check:
    aware = library["gpu_aware"]
    if aware:
        return Check("MPI and GPUs", OK, f"sends GPU memory ({', '.join(aware)})")
    if not gpus:
        return Check("MPI and GPUs", OK, "no GPU memory to send")
    says = "does not say whether it sends" if aware is None else "does not send"
    return Check(
        "MPI and GPUs",
        WARN,
        f"the library {says} GPU memory: gradients travel through the host",
        "load the site's GPU-aware MPI module, if there is one",
    )


def _started_by(mine: Facts) -> Check | None:
    """The launcher that started this job, compared with the library."""
    launched: dict[str, Any] = mine["launched"]
    library = mine["library"]
    vendors = _VENDORS.get(launched["kind"])
    names = {"openmpi": "Open MPI's mpirun", "hydra": "hydra (MPICH, Intel MPI)"}
    name = names.get(launched["kind"], launched["kind"])
    name += f" {launched['version']}" if launched["version"] else ""
    if vendors and library["vendor"] not in vendors:
        return Check(
            "MPI launcher",
            FAIL,
            f"must be of the library's vendor (launcher: {name}, library: {library['vendor']})",
            f"start with the mpirun of {library['vendor']}, or with hpc-train run -n",
        )
    theirs, ours = launched["version"], library["vendor_version"]
    if theirs and theirs.split(".")[0] != ours.split(".")[0]:
        hint = "use the mpirun of the installation that the library comes from"
        text = f"launcher and library differ (launcher: {name}, library: {ours})"
        return Check("MPI launcher", WARN, text, hint)
    return Check("MPI launcher", OK, name)


def _would_start(mine: Facts) -> Check:
    """The launcher that `run -n` would take."""
    if mine["chosen"] is None:
        message, hint = mine["launcher_problem"]
        return Check("MPI launcher", FAIL, message, hint)
    chosen = mine["chosen"]["name"]
    if not mine["first_fits"]:
        return Check(
            "MPI launcher",
            WARN,
            f"the first on the PATH does not fit the library: {mine['first']['name']}",
            f"start with hpc-train run -n, or with {chosen}",
        )
    return Check("MPI launcher", OK, chosen)
