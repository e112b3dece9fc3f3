"""Python, torch and the packages that training stands on: the same on every rank."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

import torch

from hpc_train.doctor.check import FAIL, OK, WARN, Check, Facts, Report, Request, differing

_PACKAGES = ("hpc-train", "mpi4py", "numpy", "h5py", "pydantic", "safetensors")


def facts(request: Request) -> Facts:
    """Versions of everything."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "torch": str(torch.__version__),
        "torch_build": _build(torch.version.cuda, torch.version.hip),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _build(cuda: str | None, hip: str | None) -> str:
    """What torch is built for, in words."""
    if cuda:
        return f"CUDA {cuda}"
    return f"ROCm {hip}" if hip else "CPU"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def checks(report: Report) -> list[Check]:
    """One version of each, everywhere."""
    found = report.of("software")
    return [_python(found), _torch(found), _packages(found)]


def _python(found: list[Facts]) -> Check:
    mixed = differing([fact["python"] for fact in found])
    if mixed:
        return Check("Python", WARN, f"versions differ ({mixed})", _one_environment())
    return Check("Python", OK, f"{found[0]['python']} ({found[0]['executable']})")


def _torch(found: list[Facts]) -> Check:
    mixed = differing([f"{fact['torch']} for {fact['torch_build']}" for fact in found])
    if mixed:
        return Check("torch", WARN, f"versions differ ({mixed})", _one_environment())
    return Check("torch", OK, f"{found[0]['torch']}, built for {found[0]['torch_build']}")


def _packages(found: list[Facts]) -> Check:
    """The same packages; another version of hpc_train would compute something else."""
    for name, version in found[0]["packages"].items():
        mixed = differing([fact["packages"].get(name) for fact in found])
        if mixed:
            status = FAIL if name == "hpc-train" else WARN
            return Check("packages", status, f"{name} differs ({mixed})", _one_environment())
        if version is None:
            return Check(
                "packages",
                WARN,
                f"{name} is not installed as a package",
                "python -m pip install hpc-train (or, in its source folder, -e .)",
            )
    names = ", ".join(f"{name} {version}" for name, version in found[0]["packages"].items())
    return Check("packages", OK, names)


def _one_environment() -> str:
    return "use one Python environment on every node"
