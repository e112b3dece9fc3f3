"""Stories of ranks that are replaced: from a peer's memory, again and again, rank 0 too."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

from hpc_train.errors import HpcTrainError
from hpc_train.launch import find
from hpc_train.launch.mpirun import can_lose_ranks
from hpc_train.recovery.flight import Tape, path_of
from tests.jobs.processes import Job, cli, hpc_train
from tests.jobs.test_run import assert_same_weights, result, steps, weights

pytestmark = pytest.mark.skipif(
    not can_lose_ranks(find(os.environ), os.environ),
    reason="this MPI does not survive the death of a rank (Open MPI 5 with ULFM does)",
)

# so long that a replacement is ready before the end, which a signal makes
SLOW = """\
import time
from hpc_train.tasks import TASKS

class Slow(TASKS["classification"]):
    def losses(self, *arguments):
        time.sleep(0.01)
        return super().losses(*arguments)
"""
COMMON = ("task.name=mine:Slow", "run.evaluate=50 steps", "checkpoint.every=40 steps")
PATIENCE_SECONDS = 90


def events(run, kind):
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["text"] for record in records if record.get("event") == kind]


def counts(run):
    """How many samples each rank had in each step."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return [record["before"]["counts"] for record in records if "before" in record]


def num_steps(run):
    return (run / "metrics.jsonl").read_text().count('"kind": "step"')


def wait(job, true, what):
    until = time.monotonic() + PATIENCE_SECONDS
    while not true():
        if time.monotonic() > until or not job.ranks():
            job.signal(signal.SIGTERM)
            raise AssertionError(f"{what}\n{job.end()}")
        time.sleep(0.05)


def pid_of(run, rank):
    """The process that is that rank now; None if it has not begun to train."""
    try:
        tape = Tape.open(path_of(run / "flight", rank))
    except (OSError, HpcTrainError):
        return None
    return tape.pid if tape.state().batch > 0 else None


def test_killed_ranks_are_replaced_again_and_again(config, tmp_path):
    (tmp_path / "mine.py").write_text(SLOW)
    run = tmp_path / "hurt"
    argv = ["run", config, f"run.dir={run}", *COMMON, "run.epochs=9999", "recovery.respawn=true"]
    job = Job(cli(*argv, "-n", 3, "schedule.shares=[6,3,7]"), cwd=tmp_path)
    killed = set()
    for number, rank in enumerate((1, 1, 0)):  # one, its replacement, and the first of all
        wait(job, lambda rank=rank: pid_of(run, rank) not in (None, *killed), "it does not train")
        killed.add(pid_of(run, rank))
        os.kill(pid_of(run, rank), signal.SIGKILL)
        wait(job, lambda count=number: len(events(run, "joined")) > count, "nobody joins")
        assert events(run, "joined")[number].startswith(f"rank {rank} is replaced from batch ")
        assert events(run, "joined")[number].endswith("going on with 3 ranks")
        wait(job, lambda rank=rank: pid_of(run, rank) not in (None, *killed), "it does not train")
        is_fork = b"forkserver" in Path(f"/proc/{pid_of(run, rank)}/cmdline").read_bytes()
        assert is_fork, "it imported for itself"
    wait(job, lambda: [3, 6, 7] in counts(run), "no step of all ranks, with their shares")
    job.signal(signal.SIGUSR1)
    ended = job.end()
    assert ended.code == 75, ended
    assert len(events(run, "lost")) == 3
    assert [row["rank"] for row in result(run)["ranks"]] == [1, 0, 2]
    assert sum(row["share"] for row in result(run)["ranks"]) == pytest.approx(1.0)

    done = result(run)["step"]
    calm = tmp_path / "calm"
    argv = ["run", config, f"run.dir={calm}", *COMMON, f"run.steps={done}"]
    ended = hpc_train(*argv, cwd=tmp_path)
    assert ended.code == 0, ended
    assert steps(run) == steps(calm)  # every sample delivered exactly once, by the hash
    assert_same_weights(run, calm)


@pytest.mark.parametrize(
    ("victim", "options", "tolerance"),
    [
        (1, ("comm.overlap=true", "comm.gradient_compression=fp16"), 1e-2),
        (0, ("strategy.name=parameter_server",), 1e-10),
    ],
    ids=["overlap and compression", "parameter server"],
)
def test_a_rank_is_replaced_however_gradients_travel(victim, options, tolerance, config, tmp_path):
    (tmp_path / "mine.py").write_text(SLOW)
    run, calm = tmp_path / "hurt", tmp_path / "calm"
    argv = ["run", config, f"run.dir={run}", *COMMON, "run.epochs=9999", "recovery.respawn=true"]
    job = Job(cli(*argv, *options, "-n", 2), cwd=tmp_path)
    wait(job, lambda: pid_of(run, victim) is not None, "it does not train")
    os.kill(pid_of(run, victim), signal.SIGKILL)
    wait(job, lambda: events(run, "joined"), "nobody joins")
    joined = num_steps(run)
    wait(job, lambda: num_steps(run) > joined + 20, "they do not train on")
    job.signal(signal.SIGUSR1)
    ended = job.end()
    assert ended.code == 75, ended
    assert len(events(run, "joined")) == 1, ended
    assert len(result(run)["ranks"]) == 2

    ended = hpc_train(
        "run", config, f"run.dir={calm}", *COMMON, f"run.steps={len(steps(run))}", cwd=tmp_path
    )
    assert ended.code == 0, ended
    assert steps(run) == steps(calm)
    for name, tensor in weights(run).items():
        assert abs(tensor - weights(calm)[name]).max() < tolerance


def test_a_replacement_that_cannot_start_is_told_of_and_the_others_go_on(config, tmp_path):
    (tmp_path / "mine.py").write_text(
        "import os\nfrom hpc_train.tasks import TASKS\n"
        "class Once(TASKS['classification']):\n"
        "    def __init__(self, **arguments):\n"
        "        super().__init__(**arguments)\n"
        "        if 'HPC_TRAIN_REPLACES' in os.environ:\n"
        "            raise ValueError('not again')\n"
        + SLOW.replace('Slow(TASKS["classification"])', "Slow(Once)")
    )
    run = tmp_path / "hurt"
    argv = ["run", config, f"run.dir={run}", *COMMON, "run.epochs=9999", "recovery.respawn=true"]
    job = Job(cli(*argv, "-n", 2, "--inject=kill:1@5"), cwd=tmp_path)
    text = "no more are started"
    log = run / "logs" / "rank-0000.log"
    wait(job, lambda: log.exists() and text in log.read_text(), "nobody gives up")
    job.signal(signal.SIGUSR1)
    ended = job.end()
    assert ended.code == 75, ended
    assert ended.err.count("the replacement of rank 1: ValueError('not again')") == 3, ended
    assert ended.err.count("the replacement of rank 1 died before it was ready") == 3, ended
    assert events(run, "joined") == []
