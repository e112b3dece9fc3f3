"""Stories of ranks that stop, hang or vanish: they are named within seconds, and not waited for."""

import json

import pytest

from tests.jobs.processes import Job, cli, hpc_train, mpirun
from tests.jobs.test_lost_ranks import COMMON, calm, lost, pytestmark  # noqa: F401
from tests.jobs.test_run import assert_same_weights, result, steps


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stop:0@14", "is stopped (SIGSTOP) in phase compute, batch 14"),
        ("hang:1@14:data", "is hung"),
    ],
)
def test_it_is_named_killed_and_the_run_goes_on(config, tmp_path, calm, fault, words):  # noqa: F811
    argv = ["run", config, "run.dir=hurt", *COMMON, "recovery.hang_seconds=3.0", "-n", 3]
    ended = hpc_train(*argv, f"--inject={fault}", cwd=tmp_path)
    hurt = tmp_path / "hurt"
    assert ended.code == 0, ended
    rank = fault[5]
    assert ended.err.count(f"error: rank {rank} on ") == 1, ended
    assert words in ended.err
    assert ", which waits:" in ended.err
    assert "loop.py" in ended.err  # the stack of one that waits
    assert ("strike" in ended.err) == fault.startswith("hang")  # ... and of the culprit
    assert f"rank {rank} on " in lost(hurt)[0]
    assert steps(hurt) == steps(calm)
    assert_same_weights(hurt, calm)
    told = hpc_train("autopsy", hurt, "--json", cwd=tmp_path)
    verdict = json.loads(told.out)["verdict"]
    assert (verdict["rank"], verdict["batch"]) == (int(rank), 14)


def test_one_that_vanishes_without_mpis_notice_ends_the_job_with_its_name(config, tmp_path):
    # by a launcher of the user's own: without the shell above each rank that would see it
    argv, extra = mpirun(2, cli("run", config, "run.dir=hurt", *COMMON, "--inject=exit:1@17"))
    argv[1:1] = ["--with-ft", "ulfm"]
    ended = Job(argv, cwd=tmp_path, env=extra).end()
    assert ended.code != 0, ended  # by the launcher, which sometimes ends the job, or the watchdog
    told = hpc_train("autopsy", "hurt", cwd=tmp_path)
    assert told.code == 0, told
    last = told.out.strip().splitlines()[-1]
    assert last.startswith("rank 1 on ")
    assert "batch 17, in phase compute" in last
    assert not (tmp_path / "hurt" / "result.json").exists() or (
        result(tmp_path / "hurt")["status"] != "done"
    )
