"""Training jobs for measuring: started like a user's, told by their metrics; a real CPU quota."""

import itertools
import json
import socket
import statistics
import subprocess
import sys
import uuid
from pathlib import Path

from quiet import QUIET

from hpc_train.bench.quota import inside
from hpc_train.launch import launching

HERE = Path(__file__).parent
SOLO_STEPS = 35
SKIPPED = 25  # steps at the beginning: warm-up, and what the scheduler needs to learn


def rates(run_dir, skipped=SKIPPED):
    """Samples a second of every step after the beginning, over batches of full size."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    steps = [r for r in map(json.loads, lines) if r["kind"] == "step"]
    return [step["samples_per_second"] for step in steps[skipped:]]


def program(run_dir, settings, *options):
    """The command line of one rank."""
    config = ["digits-mlp", "run.evaluate=never", "checkpoint.every=never", "device.threads=1"]
    words = ["run", *config, f"run.dir={run_dir}", *settings, *options]
    return [sys.executable, "-m", "hpc_train", *map(str, words)]


def train(folder, ranks, settings, *options, skipped=SKIPPED):
    """Train on `ranks` ranks; gives samples a second of steps of one size, stalls included."""

    def once():
        run_dir = folder / uuid.uuid4().hex[:8]
        call = program(run_dir, settings, "-n", ranks, *options)
        subprocess.run(call, cwd=HERE, check=True, capture_output=True, timeout=300)
        return statistics.harmonic_mean(rates(run_dir, skipped))

    return QUIET.measure(once)


def train_with_quota(folder, group, settings, skipped):
    """Train on two ranks, the second inside `group`; gives samples a second."""

    def once():
        run_dir = folder / uuid.uuid4().hex[:8]
        ranks = inside(group, program(run_dir, settings), only_rank=1)
        with launching(ranks, 2) as call:
            subprocess.run(
                call.argv, cwd=HERE, check=True, capture_output=True, timeout=300, env=call.environ
            )
        return statistics.harmonic_mean(rates(run_dir, skipped))

    return QUIET.measure(once)


def solo_rates(folder, group, settings, skipped):
    """Samples a second of a free rank and of one inside `group`, at once and without a word.

    They begin together, and the free one has five times as many steps, so that both compute all
    the time that counts: from its steps those are taken that the limited one saw.
    """

    def once():
        dirs = [folder / uuid.uuid4().hex[:8] for _ in range(2)]
        meeting = folder / uuid.uuid4().hex[:8]
        meeting.mkdir()
        task = ["task.name=meeting:Meeting", f"task.folder={meeting}"]
        free, limited = (
            program(run_dir, [*settings, *task, f"run.steps={steps}"])
            for run_dir, steps in zip(dirs, (5 * SOLO_STEPS, SOLO_STEPS), strict=True)
        )
        together([free, inside(group, limited)])
        free, limited = (rates(run_dir, 1) for run_dir in dirs)  # in the first step they meet
        begin, end = (sum(1 / rate for rate in part) for part in (limited[:skipped], limited))
        at = list(itertools.accumulate(1 / rate for rate in free))
        if at[-1] < end:
            raise RuntimeError("the free rank ended before the limited one")
        seen = [rate for rate, t in zip(free, at, strict=True) if begin <= t <= end]
        return [statistics.harmonic_mean(part) for part in (seen, limited[skipped:])]

    return QUIET.measure(once)


def ddp_with_quota(group, batch_size, steps, skipped):
    """The same with DistributedDataParallel and equal shares; gives samples a second."""

    def once():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [str(HERE / "ddp.py"), "{}", port, batch_size, steps]
        calls = [[sys.executable, *(str(word).format(rank) for word in words)] for rank in range(2)]
        told = together([calls[0], inside(group, calls[1])])
        return statistics.harmonic_mean(json.loads(told[0])[skipped:])

    return QUIET.measure(once)


def together(calls):
    """Run commands at the same time; gives what each prints."""
    jobs = [
        subprocess.Popen(
            call, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for call in calls
    ]
    told = [job.communicate(timeout=300)[0] for job in jobs]
    if any(job.returncode for job in jobs):
        raise RuntimeError(f"a rank failed: {[job.returncode for job in jobs]}")
    return told


def median(values):
    """Median and extremes of the rounds."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
