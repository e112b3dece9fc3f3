"""Runs the jobs of a study, one after the other, each started by the launcher."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hpc_train.bench import harness
from hpc_train.bench.scaling.report import report
from hpc_train.bench.scaling.settings import TITLES, Settings, Turn
from hpc_train.bench.scaling.workload import Job, part_of_data, read_measured, write_data
from hpc_train.errors import EXIT_INTERRUPTED, HpcTrainError
from hpc_train.launch import start_ranks


def study(settings: Settings, out: Path, tell: Callable[[str], None]) -> dict[str, Any]:
    """Measure all that `settings` ask for; gives the document of results.

    Args:
        settings: what to measure.
        out: a folder that all ranks see; data and jobs lie in it while this runs.
        tell: gets a line of progress now and then.

    Raises:
        HpcTrainError: if a job fails, or jobs did not train the same.
    """
    circumstances = harness.circumstances()
    warning = harness.busy_machine(circumstances["load_average"], circumstances["cores"])
    if warning is not None:
        tell(warning)
    measured: dict[Turn, list[dict[str, Any]]] = {turn: [] for turn in settings.turns()}
    with _workplace(out) as folder:
        root = Path(folder)
        tell(f"{len(measured)} jobs in each of {settings.rounds} rounds")
        samples = write_data(root / "data", settings.largest_batch)
        for number, turn in harness.alternate(list(measured), settings.rounds):
            job = _job(settings, turn, root, samples, number)
            found = _run(job)
            measured[turn].append(found)
            tell(
                f"round {number + 1}/{settings.rounds}  ranks {turn.ranks}  "
                f"batch {turn.batch_size}  {TITLES[turn.side]:<19}  "
                f"{1e3 * found['step_seconds']:.1f} ms a step"
            )
    figures = report(settings, measured)
    return {"benchmark": "scaling", "environment": circumstances, **figures}


def _workplace(out: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(prefix=".scaling-", dir=out.absolute())
    except OSError as error:
        raise HpcTrainError(
            f"cannot write there: {error.strerror}",
            where=str(out),
            hint="choose another folder with --out DIR",
        ) from error


def _job(settings: Settings, turn: Turn, root: Path, samples: int, number: int) -> Job:
    return Job(
        side=turn.side,
        ranks=turn.ranks,
        batch_size=turn.batch_size,
        micro_batch_size=settings.micro_batch_size,
        steps=settings.steps,
        warmup=settings.warmup,
        threads=settings.threads,
        data=part_of_data(root / "data", samples, turn.batch_size),
        folder=str(root / f"round-{number}" / f"{turn.side}-{turn.ranks}-{turn.batch_size}"),
    )


def _run(job: Job) -> dict[str, Any]:
    """Start the ranks of a job and wait for what they measured."""
    job.write()
    program = [sys.executable, "-m", "hpc_train.bench.scaling.worker", str(job.file)]
    environ = {**os.environ, "OMP_NUM_THREADS": str(job.threads)}
    code = start_ranks(program, job.ranks, environ)
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    found = read_measured(job)
    if code != 0 or found is None:
        raise HpcTrainError(
            f"a job left nothing to measure (side: {job.side}, ranks: {job.ranks}, "
            f"exit code: {code})",
            hint="the lines above say why; hpc-train doctor checks the machine",
        )
    return found
