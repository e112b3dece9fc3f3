"""Starts the job that measures, and makes a document of what it found."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hpc_train.bench import harness
from hpc_train.bench.allreduce.report import figures
from hpc_train.bench.allreduce.settings import Settings
from hpc_train.errors import EXIT_INTERRUPTED, HpcTrainError
from hpc_train.launch import start_ranks
from hpc_train.observe import write_json


def study(settings: Settings, out: Path) -> dict[str, Any]:
    """Measure all that `settings` ask for; gives the document of results.

    Args:
        settings: what to measure.
        out: a folder that all ranks see; the files of the job lie in it while it runs.

    Raises:
        HpcTrainError: if the job fails, or the folder cannot be written to.
    """
    circumstances = harness.circumstances()
    try:
        out.mkdir(parents=True, exist_ok=True)
        workplace = tempfile.TemporaryDirectory(prefix=".allreduce-", dir=out.absolute())
    except OSError as error:
        raise HpcTrainError(
            f"cannot write there: {error.strerror}",
            where=str(out),
            hint="choose another folder with --out DIR",
        ) from error
    with workplace as folder:
        measured = _run(settings, Path(folder))
    points = [figures(point, settings.ranks) for point in measured.pop("points")]
    return {
        "benchmark": "allreduce",
        "environment": circumstances,
        "settings": settings.to_json(),
        **measured,
        "points": points,
    }


def _run(settings: Settings, folder: Path) -> dict[str, Any]:
    asked, found = folder / "settings.json", folder / "measured.json"
    write_json(asked, settings.to_json())
    program = [sys.executable, "-m", "hpc_train.bench.allreduce.worker", str(asked), str(found)]
    code = start_ranks(program, settings.ranks, {**os.environ, "OMP_NUM_THREADS": "1"})
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code != 0 or not found.exists():
        raise HpcTrainError(
            f"the job left nothing to measure (ranks: {settings.ranks}, exit code: {code})",
            hint="the lines above say why; hpc-train doctor checks the machine",
        )
    return harness.read_results(found)
