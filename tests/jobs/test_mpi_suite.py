"""Starts the tests that need several ranks: one job for each number of ranks."""

import re
import sys
from pathlib import Path

import pytest

from tests.jobs.processes import Job, mpirun

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(1000)
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_everything_in_tests_mpi_passes_on(ranks):
    program = [sys.executable, "-m", "mpi4py", "-m", "pytest", "-x", "-q", "--only-mpi"]
    program += ["--timeout=200", "--timeout-method=thread", "-p", "no:cacheprovider"]
    argv, extra = mpirun(ranks, [*program, "--color=no", "tests/mpi"])
    ended = Job(argv, cwd=ROOT, env={**extra, "OMP_NUM_THREADS": "1"}).end(900)
    if ended.code:
        pytest.fail(str(ended)[-20_000:], pytrace=False)
    passed = [int(count) for count in re.findall(r"(\d+) passed", ended.out)]
    # a suite that was skipped as a whole would look green
    assert len(passed) == ranks, ended
    assert min(passed) > 10, ended
