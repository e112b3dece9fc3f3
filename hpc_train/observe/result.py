"""`result.json`, `environment.json`: how a run ended, and under which circumstances."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from hpc_train.observe.metrics import finite

SCHEMA_VERSION = 1
RESTARTS = "HPC_TRAIN_RESTARTS"  # the variable in which a supervisor tells why it started again
_PACKAGES = ("hpc-train", "torch", "numpy", "h5py", "mpi4py", "pydantic", "safetensors")


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        status: "done", "preempted" (saved, wants to be requeued), or "failed".
        exit_code: the exit code that goes with it.
        step: updates that were made.
        metrics: the last evaluation of each data set, such as {"test": {"accuracy": 0.98}}.
        run_dir: where all of it lies.
        seconds: wall time of training, evaluations and saves included.
        samples_per_second: trained samples over the seconds of training steps.
        ranks: one entry per rank: share, samples, seconds of computing and waiting.
        balance: what the steps took, and would have taken with equal shares, in seconds of
            computing; how often the plan changed.
        staleness: of a parameter server: how many updates were made with gradients that lacked so
            many others, such as {"0": 80, "1": 20}.
        restarts: why the supervisor had started the ranks again, one text each time.
        skipped_samples: how often samples were left out, since they could not be read.
        error: the error's lines, if it failed.
    """

    status: str
    exit_code: int
    step: int
    metrics: dict[str, dict[str, float]]
    run_dir: str
    seconds: float = 0.0
    samples_per_second: float = 0.0
    ranks: list[dict[str, Any]] = field(default_factory=list)
    balance: dict[str, Any] = field(default_factory=dict)
    staleness: dict[str, int] = field(default_factory=dict)
    restarts: list[str] = field(default_factory=list)
    skipped_samples: int = 0
    error: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write `result.json` into `folder`, atomically."""
        write_json(folder / "result.json", {"schema_version": SCHEMA_VERSION, **asdict(self)})


def read_result(folder: Path) -> Result | None:
    """The result of the run in `folder`; None if there is none that can be read."""
    try:
        document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        document.pop("schema_version")
        document["metrics"] = {
            data: {n: math.nan if v is None else v for n, v in values.items()}
            for data, values in document["metrics"].items()
        }
        return Result(**document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def told_restarts(environ: Mapping[str, str]) -> list[str]:
    """Why a supervisor had to start this run again, one text each time."""
    try:
        told = json.loads(environ.get(RESTARTS, "[]"))
    except ValueError:
        return []
    return [str(text) for text in told] if isinstance(told, list) else []


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a document to `path`, atomically; numbers that are not finite become null."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(finite(document), file, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def environment() -> dict[str, Any]:
    """Versions, command line and git commit (if any) of this process."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions,
        "command": sys.argv,
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
