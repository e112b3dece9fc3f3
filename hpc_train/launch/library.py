"""Which MPI library Python loads: asked of a child process, because loading it can be deadly.

Some sites end processes that touch MPI on login nodes, and a broken network driver can keep
`MPI_Init` waiting for minutes: a child with a time limit bears both.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hpc_train

# Run as a file: importing the package `comm` would load torch.
_SCRIPT = Path(hpc_train.__file__).parent / "comm" / "facts.py"


@dataclass(frozen=True)
class Probe:
    """What the child process found out.

    Attributes:
        facts: as of `comm.facts`; None if it found nothing.
        problem: what went wrong, in words; None if nothing did.
        missing: no library (or no mpi4py) can be loaded at all.
    """

    facts: dict[str, Any] | None
    problem: str | None = None
    missing: bool = False


def probe(environ: Mapping[str, str], *, start: bool, seconds: float = 30.0) -> Probe:
    """The MPI library of this Python, as a child process sees it.

    Args:
        environ: the environment of the child.
        start: also start MPI, to hear what only a started MPI can tell.
        seconds: the child is killed after this time.
    """
    subject = "start" if start else "library"
    argv = [sys.executable, "-P", str(_SCRIPT), subject]
    try:
        answer = subprocess.run(
            argv,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Probe(None, f"it does not {subject_verb(start)} within {seconds:g} s")
    return parse_answer(answer.returncode, answer.stdout, answer.stderr, start=start)


def parse_answer(code: int, stdout: str, stderr: str, *, start: bool) -> Probe:
    """What the child's exit status and output say."""
    lines = stdout.strip().splitlines()
    try:
        facts = json.loads(lines[-1]) if lines else {}
    except ValueError:
        facts = {}
    if "error" in facts:
        return Probe(None, str(facts["error"]), missing=True)
    if facts and code == 0:
        return Probe(facts)
    cause = f"signal {-code}" if code < 0 else f"exit code {code}"
    last = [line.strip() for line in stderr.splitlines() if line.strip()]
    detail = f": {last[-1]}" if last else ""
    return Probe(None, f"it does not {subject_verb(start)} ({cause}{detail})")


def subject_verb(start: bool) -> str:
    """What the child was to do with the library."""
    return "start" if start else "load"
