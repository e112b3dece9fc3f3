"""Jobs of Slurm: submitted, asked about, cancelled; a run's `slurm.json` knows its job."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_train.errors import SetupError
from hpc_train.observe.result import write_json

FILE = "slurm.json"
SCRIPT = "job.sbatch"
_SECONDS = 60.0
_FIELDS = ("JobState", "Reason", "NumNodes", "NodeList", "RunTime", "TimeLimit", "Restarts")


@dataclass(frozen=True)
class Submission:
    """A job that was submitted: its id, and the cluster's name if there are several."""

    job: str
    cluster: str = ""


def submit(folder: Path, script: str) -> Submission:
    """Write the script into the run directory and submit it.

    Raises:
        SetupError: if there is no Slurm here, or it refuses the job.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SCRIPT
    path.write_text(script, encoding="utf-8")
    path.chmod(0o755)
    answer = call(["sbatch", "--parsable", str(path)]).strip().splitlines()[-1]
    job, _, cluster = answer.partition(";")
    if not re.fullmatch(r"\d+", job):
        raise SetupError(f'sbatch must answer with a job id (answer: "{answer}")')
    found = Submission(job, cluster)
    write_json(folder / FILE, asdict(found))
    return found


def read_submission(folder: Path) -> Submission | None:
    """The job that was submitted for the run in `folder`; None if none was."""
    try:
        return Submission(**json.loads((folder / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def ask(job: str) -> list[dict[str, str]]:
    """What Slurm knows of a job, an entry for each element of an array; empty if it forgot it.

    The keys are JobId, JobState, Reason, NumNodes, NodeList, RunTime, TimeLimit, Restarts.

    Raises:
        SetupError: if there is no Slurm here, or it does not answer.
    """
    try:
        text = call(["scontrol", "show", "job", "--oneliner", job])
    except SetupError as error:
        if "Invalid job id" in str(error):
            return []
        raise
    return [parse(line) for line in text.splitlines() if "JobId=" in line]


def parse(line: str) -> dict[str, str]:
    """The fields of one line of `scontrol show job --oneliner`."""
    found = {}
    for name in ("JobId", "ArrayTaskId", *_FIELDS):
        if match := re.search(rf"(?:^| ){name}=(\S*)", line):
            found[name] = match[1]
    return found


def cancel(job: str) -> None:
    """Cancel a job.

    Raises:
        SetupError: if there is no Slurm here, or it refuses.
    """
    call(["scancel", job])


def call(argv: Sequence[str]) -> str:
    """What a command of Slurm prints.

    Raises:
        SetupError: if it is not there, fails, or does not answer in time.
    """
    if shutil.which(argv[0]) is None:
        raise SetupError(
            f"{argv[0]} is not here", hint="this command works where Slurm's commands are"
        )
    try:
        ended = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise SetupError(f"{argv[0]} gives no answer within {_SECONDS:.0f} s") from None
    if ended.returncode != 0:
        said = " ".join(ended.stderr.split()) or f"exit code {ended.returncode}"
        raise SetupError(f"{argv[0]} refuses: {said}")
    return ended.stdout
