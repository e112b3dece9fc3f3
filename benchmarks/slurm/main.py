"""On a real Slurm of this one machine: jobs that are signalled, and jobs that lose a node."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the virtual cluster is the one of the tests

from hpc_train.bench.harness import circumstances, read_results, write_results  # noqa: E402
from tests.jobs.conftest import CONFIG, write_blobs  # noqa: E402
from tests.jobs.processes import hpc_train  # noqa: E402
from tests.jobs.test_run import assert_same_weights, result, steps  # noqa: E402
from tests.slurm.cluster import Cluster  # noqa: E402
from tests.slurm.runs import Runs, num_steps  # noqa: E402

HERE = Path(__file__).parent
LAUNCHERS = ("mpirun", "srun-pmix")
JOBS = {"cycles": 4, "power": 10}
CYCLES = 5  # of each job
PATIENCE_SECONDS = 25.0  # after which somebody tells Slurm that a lost node is down


def undisturbed(folder: Path, config: str) -> Path:
    """The run that nobody disturbs, on one rank and without Slurm."""
    (folder / "calm.toml").write_text(config)
    ended = hpc_train("run", "calm.toml", "run.dir=calm", *Runs.COMMON, cwd=folder, seconds=240)
    assert ended.code == 0, ended
    return folder / "calm"


def same(run: Path, calm: Path) -> str:
    """What is wrong with a finished run; empty if it equals the undisturbed one."""
    if not (run / "result.json").exists() or result(run)["status"] != "done":
        return "not trained"
    if steps(run) != steps(calm):
        return "samples"
    try:
        assert_same_weights(run, calm)
    except AssertionError:
        return "weights"
    return ""


def cycles(seed: int) -> dict[str, Any]:
    """A job that is signalled `CYCLES` times, and gets another number of nodes each time."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, Cluster() as cluster:
        config = CONFIG.format(train=write_blobs(Path(name) / "blobs"))
        calm = undisturbed(Path(name), config)
        runs = Runs(cluster, Path(name), config)
        run = runs.submit("run", "--nodes", "1-3", "--launcher", LAUNCHERS[seed % 2])
        done: list[dict[str, Any]] = []
        for number in range(CYCLES):
            runs.wait_for_steps(run, num_steps(run) + rng.randrange(3, 9))
            ranks = int(runs.jobs(run)[0]["NumNodes"])  # one on each
            runs.save_and_leave(run)
            runs.wait(run, "a restart", lambda n=number: runs.restarts(run) > n)  # type: ignore[misc]
            equal = steps(run) == steps(calm)[: len(steps(run))]
            done.append({"ranks": ranks, "steps": len(steps(run)), "same_samples": equal})
            give(cluster, runs, run, rng.choice([n for n in (1, 2, 3) if n != ranks]))
            print(f"cycle {number + 1}: {done[-1]}", flush=True)
        runs.go()
        states = runs.wait_for_end(run)
        return {
            "launcher": LAUNCHERS[seed % 2],
            "cycles": done,
            "state": sorted(states),
            "starts_by_slurm": 1 + runs.restarts(run),
            "problem": same(run, calm),
        }


def give(cluster: Cluster, runs: Runs, run: Path, nodes: int) -> None:
    """Let a job that waits have so many nodes: Slurm by itself gives the fewest of a range.

    It remembers as many cores as the job has had, which fewer nodes may not have.
    """
    job = runs.jobs(run)[0]["JobId"]
    amounts = (f"NumNodes={nodes}-{nodes}", f"NumTasks={nodes}", f"NumCPUs={nodes}")
    words = ("update", f"JobId={job}", *amounts)
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            cluster.call("scontrol", *words)
            return
        except subprocess.SubprocessError:
            time.sleep(0.2)


def power(seed: int) -> dict[str, Any]:
    """A job that loses a node at a random step; every third one loses its first node."""
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, Cluster() as cluster:
        config = CONFIG.format(train=write_blobs(Path(name) / "blobs"))
        calm = undisturbed(Path(name), config)
        runs = Runs(cluster, Path(name), config)
        launcher = LAUNCHERS[seed % 2]
        lost = "node1" if seed // 2 % 3 == 2 else "node2"
        outcome = lose(cluster, runs, launcher, lost, rng.randrange(5, 40))
        return {
            "launcher": launcher,
            "lost": lost,
            **outcome,
            "problem": same(Path(name) / "run", calm),
        }


def lose(cluster: Cluster, runs: Runs, launcher: str, lost: str, step: int) -> dict[str, Any]:
    """Submit a job, power a node off at a step, and see what becomes of it."""
    run = runs.submit("run", "--nodes", "2-3", "--launcher", launcher)
    runs.wait_for_steps(run, step)
    cluster.power_off(lost)
    begun = time.monotonic()
    runs.go()
    while time.monotonic() - begun < PATIENCE_SECONDS:
        if runs.restarts(run) or "RUNNING" not in runs.states(run):
            break
        time.sleep(0.2)
    runs.give_up(run, lost)
    states = runs.wait_for_end(run)
    return {
        "step": step,
        "state": sorted(states),
        "went_on_inside": "does not answer" in runs.output(run),
        "starts_by_slurm": 1 + runs.restarts(run),
        "seconds_to_end": round(time.monotonic() - begun, 1),
    }


PARTS = {"cycles": cycles, "power": power}


def summary(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """How many of the jobs ended right, and how many cycles had the right samples."""
    rounds = [one for job in jobs for one in job.get("cycles", ())]
    right = [job for job in jobs if job["state"] == ["COMPLETED"] and not job["problem"]]
    return {
        "jobs": len(jobs),
        "right": len(right),
        "by_launcher": {
            name: [sum(job["launcher"] == name for job in some) for some in (right, jobs)]
            for name in LAUNCHERS
        },
        "completed_without_a_model": sum(
            job["state"] == ["COMPLETED"] and job["problem"] == "not trained" for job in jobs
        ),
        "cycles": len(rounds),
        "cycles_with_the_same_samples": sum(one["same_samples"] for one in rounds),
    }


def main() -> None:
    """Run jobs of one part or both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--jobs", type=int, help="default: 4 (cycles), 10 (power)")
    parser.add_argument("--add", action="store_true", help="to those that are recorded")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    asked = parser.parse_args()
    for part in asked.part:
        path = asked.out / f"{part}.json"
        jobs = list(read_results(path)["each"]) if asked.add and path.exists() else []
        for _ in range(asked.jobs or JOBS[part]):
            jobs.append(PARTS[part](len(jobs)))
            print(jobs[-1], flush=True)
            figures = summary(jobs)
            write_results(path, {"circumstances": circumstances(), **figures, "each": jobs})
        print(part, figures)


if __name__ == "__main__":
    main()
