"""Runs on a cluster: submitted as a user does, watched, disturbed."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from hpc_train.launch.slurm import read_submission
from hpc_train.launch.slurm.jobs import parse
from tests.jobs.processes import cli
from tests.slurm.cluster import Cluster

LIMIT_SECONDS = 200.0
REFUSAL_SECONDS = 8.0  # more than cred_expire
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}
# slow until the file `go` is there: there is all the time in the world to disturb a run
_TASK = """\
import time
from pathlib import Path
from hpc_train.tasks import Classification

class Slow(Classification):
    def losses(self, model, batch):
        if model.training and not Path("go").exists():
            time.sleep(0.5)
        return super().losses(model, batch)
"""


class Runs:
    """Submits runs of one configuration from one folder.

    Args:
        cluster: on which.
        folder: where the configuration lies, and the runs will.
        config: its text.
    """

    COMMON = ("run.epochs=10", "run.evaluate=5 epochs", "checkpoint.every=5 steps")

    def __init__(self, cluster: Cluster, folder: Path, config: str) -> None:
        self._cluster = cluster
        self._folder = folder
        (folder / "story.toml").write_text(config)
        (folder / "mine.py").write_text(_TASK)

    def command(self, *words: str | Path) -> str:
        """What `hpc-train WORDS` prints, in this folder and on this cluster."""
        ended = subprocess.run(
            cli(*words),
            cwd=self._folder,
            env=self._cluster.environ,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert ended.returncode == 0, ended
        return ended.stdout

    def submit(self, name: str, *words: str) -> Path:
        """`hpc-train submit` with these words after what all have in common; the run directory."""
        what = ("story.toml", f"run.dir={name}", "task.name=mine:Slow", *self.COMMON)
        self.command("submit", *what, "--time", "01:00:00", *words)
        return self._folder / name

    def go(self) -> None:
        """From now on all runs are fast."""
        (self._folder / "go").touch()

    def jobs(self, run: Path) -> list[dict[str, str]]:
        """What Slurm knows of the job of a run, one for each element of an array."""
        text = self._cluster.call("scontrol", "show", "job", "--oneliner", _job(run))
        return [parse(line) for line in text.splitlines() if "JobId=" in line]

    def states(self, run: Path) -> set[str]:
        """The states of its jobs."""
        return {job["JobState"] for job in self.jobs(run)}

    def restarts(self, run: Path) -> int:
        """How often Slurm has started its jobs again."""
        return sum(int(job["Restarts"]) for job in self.jobs(run))

    def save_and_leave(self, run: Path) -> None:
        """Signal the batch script, as Slurm does near the time limit."""
        self._cluster.call("scancel", "--batch", "--signal=USR1", _job(run))

    def wait_for_steps(self, run: Path, count: int) -> None:
        """Until a run has made so many steps."""
        self.wait(run, f"{count} steps", lambda: num_steps(run) >= count)

    def wait_for_end(self, run: Path) -> set[str]:
        """Until all jobs of a run are over; their states."""
        self.wait(run, "the end", lambda: self.states(run) <= OVER)
        return self.states(run)

    def wait(self, run: Path, what: str, holds: Callable[[], bool]) -> None:
        """Until something holds that a run is waited for."""
        until = time.monotonic() + LIMIT_SECONDS
        while not holds():
            if time.monotonic() > until:
                raise AssertionError(f"{what}: not in {LIMIT_SECONDS:.0f} s\n{self.text(run)}")
            time.sleep(0.1)

    def give_up(self, run: Path, node: str) -> None:
        """Say that a lost node is down: Slurm waits for it until it knows.

        A job that was queued again waits with it, and not before the others are free of it for so
        long that they take it again (`cred_expire`) may that be said: Slurm would start it at once,
        they would refuse it, and it would fail.
        """
        if self.restarts(run):
            self.wait(run, "the others", lambda: self._waits_for(run) <= {node})
            time.sleep(REFUSAL_SECONDS)
        self._cluster.update(node, "DOWN")

    def _waits_for(self, run: Path) -> set[str]:
        """The nodes that a job has yet to leave before it can start again."""
        told = self._cluster.call("squeue", "-h", "-t", "COMPLETING", "-j", _job(run), "-o", "%N")
        names = told.strip()
        return set(
            self._cluster.call("scontrol", "show", "hostnames", names).split() if names else ()
        )

    def output(self, run: Path) -> str:
        """All that the job of a run has printed."""
        paths = sorted(run.glob("slurm-*.out"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def text(self, run: Path) -> str:
        """The same, what Slurm knows of it, and the last words of the daemons."""
        return f"{self.output(run)}\n{self.jobs(run)}\n{self._cluster.logs()}"


def _job(run: Path) -> str:
    found = read_submission(run)
    assert found is not None
    return found.job


def num_steps(run: Path) -> int:
    """How many records of steps a run has written."""
    path = run / "metrics.jsonl"
    return path.read_text().count('"kind": "step"') if path.exists() else 0
