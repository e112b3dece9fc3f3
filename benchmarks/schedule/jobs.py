"""Training jobs for measuring: started like a user's, told by their metrics; a real CPU quota."""

import json
import os
import statistics
import subprocess
import sys
import uuid
from pathlib import Path

from hpc_train.bench.quota import inside
from hpc_train.launch import command, find
from hpc_train.launch.machine import this_machine

HERE = Path(__file__).parent
SKIPPED = 25  # steps at the beginning: warm-up, and what the scheduler needs to learn


def rates(run_dir):
    """Samples a second of every step after the beginning, over batches of full size."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    steps = [r for r in map(json.loads, lines) if r["kind"] == "step"]
    return [step["samples_per_second"] for step in steps[SKIPPED:]]


def speed(run_dir):
    """Samples a second: steps of one size, all their seconds counted, stalls included."""
    return statistics.harmonic_mean(rates(run_dir))


def program(run_dir, settings, *options):
    """The command line of one rank."""
    config = ["digits-mlp", "run.evaluate=never", "checkpoint.every=never", "device.threads=1"]
    words = ["run", *config, f"run.dir={run_dir}", *settings, *options]
    return [sys.executable, "-m", "hpc_train", *map(str, words)]


def train(folder, ranks, settings, *options):
    """Train on `ranks` ranks; gives samples a second in the median step."""
    run_dir = folder / uuid.uuid4().hex[:8]
    call = program(run_dir, settings, "-n", ranks, *options)
    subprocess.run(call, cwd=HERE, check=True, capture_output=True, timeout=300)
    return statistics.median(rates(run_dir))


def train_with_quota(folder, group, settings):
    """Train on two ranks, the second inside `group`; gives samples a second."""
    run_dir = folder / uuid.uuid4().hex[:8]
    call = inside(group, program(run_dir, settings), only_rank=1)
    argv, extra = command(find(os.environ), call, ranks=2, machine=this_machine(os.environ))
    subprocess.run(
        argv, cwd=HERE, check=True, capture_output=True, timeout=300, env={**os.environ, **extra}
    )
    return speed(run_dir)


def solo_rates(folder, group, settings):
    """Samples a second of a free rank and of one inside `group`, at once and without a word."""
    dirs = [folder / uuid.uuid4().hex[:8] for _ in range(2)]
    calls = [program(dirs[0], settings), inside(group, program(dirs[1], settings))]
    jobs = [
        subprocess.Popen(call, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for call in calls
    ]
    for job in jobs:
        if job.wait(300):
            raise RuntimeError(f"a rank alone failed with {job.returncode}")
    return [speed(run_dir) for run_dir in dirs]


def median(values):
    """Median and extremes of the rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
