"""Training jobs for measuring: started like a user's, told by their metrics; a real CPU quota."""

import json
import shlex
import socket
import statistics
import subprocess
import sys
import uuid
from contextlib import ExitStack
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
from quiet import QUIET

from hpc_train.bench.quota import inside
from hpc_train.bench.turns import take_turns
from hpc_train.launch import launching

HERE = Path(__file__).parent
TURN_SECONDS = 5.0
# of a rank under a quota alone, and of two ranks together: some twenty seconds each
ALONE_STEPS, TOGETHER_STEPS = 60, 260
LIMITED_SKIPPED, TOGETHER_SKIPPED = 5, 60
SKIPPED = 25  # steps at the beginning: warm-up, and what the scheduler needs to learn


def rates(run_dir, skipped=SKIPPED):
    """Samples a second of every step after the beginning, over batches of full size."""
    return [step["samples_per_second"] for step in records(run_dir)[skipped:]]


def records(run_dir):
    """What a run tells of its steps."""
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == "step"]


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


def in_turns(folder, group, settings, batch_size):
    """Two ranks, the second inside `group`, together, and the same two without a word.

    Both jobs take turns of some seconds, so that they meet the same machine. In the second one both
    compute at once: the free rank has five times as many steps, and those are taken that the
    limited one saw.

    Args:
        folder: for the runs.
        group: a control group.
        settings: of all of them.
        batch_size: of them.

    Returns:
        Samples a second together, of the free rank, of the limited one.
    """

    def once():
        place = folder / uuid.uuid4().hex[:8]
        free = timed(place, "free", "alone", [*settings, f"run.steps={5 * ALONE_STEPS}"])
        alone = timed(place, "limited", "alone", [*settings, f"run.steps={ALONE_STEPS}"])
        both = f"{shlex.join(free)} & {shlex.join(inside(group, alone))}; wait"
        words = timed(place, "together", "ranks", [*settings, f"run.steps={TOGETHER_STEPS}"])
        with launching(inside(group, words, only_rank=1), 2) as call:
            pauses, pauses_alone = take_turns(
                [
                    partial(started, call.argv, call.environ),
                    partial(started, ["sh", "-c", both], None),
                ],
                [partial(trains, place / "together"), partial(trains, place / "limited")],
                TURN_SECONDS,
            )
        seen = times_of(place, "limited")[LIMITED_SKIPPED:]
        free = times_of(place, "free")
        free = free[(free >= seen[0]) & (free <= seen[-1])]
        return [
            rate(times_of(place, "together")[TOGETHER_SKIPPED:], batch_size, pauses),
            rate(free, batch_size, pauses_alone),
            rate(seen, batch_size, pauses_alone),
        ]

    return QUIET.measure(once)


def by_turns(folder, ranks, sides, batch_size):
    """Train each of `sides` (settings, by name) on `ranks` ranks; they take turns of some seconds.

    Returns:
        Of each side: samples a second, and how often its plan changed meanwhile.
    """

    def once():
        place = folder / uuid.uuid4().hex[:8]
        steps = f"run.steps={TOGETHER_STEPS}"
        programs = [timed(place, name, name, [*words, steps]) for name, words in sides.items()]
        with ExitStack() as stack:
            calls = [stack.enter_context(launching(words, ranks)) for words in programs]
            pauses = take_turns(
                [partial(started, call.argv, call.environ) for call in calls],
                [partial(trains, place / name) for name in sides],
                TURN_SECONDS,
            )
        found = {}
        for name, paused in zip(sides, pauses, strict=True):
            plans = [step["before"]["counts"] for step in records(place / name)[TOGETHER_SKIPPED:]]
            changes = sum(one != other for one, other in pairwise(plans))
            times = times_of(place, name)[TOGETHER_SKIPPED:]
            found[name] = rate(times, batch_size, paused), changes
        return found

    return QUIET.measure(once)


def timed(place, name, meeting, settings):
    """The command line of a rank that tells when its steps began, once two are at the meeting."""
    (place / f"at-{meeting}").mkdir(parents=True, exist_ok=True)
    task = ["task.name=meeting:Meeting", f"task.folder={place / f'at-{meeting}'}"]
    return program(place / name, [*settings, *task, f"task.label={name}"])


def times_of(place, name):
    """When the steps of rank 0 of a job began."""
    return np.fromfile(place / f"{name}-0.times")


def started(argv, environ):
    """A command, in a session of its own."""
    return subprocess.Popen(
        argv,
        cwd=HERE,
        env=environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def trains(run_dir):
    """Whether a run has made its first step."""
    return (run_dir / "metrics.jsonl").exists()


def rate(times, batch_size, pauses):
    """Samples a second of steps that began at `times`; not of those in which the job paused."""
    steps = [
        stop - start
        for start, stop in pairwise(times)
        if not any(start < end and stop > begin for begin, end in pauses)
    ]
    return float(batch_size * len(steps) / sum(steps))


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
        subprocess.Popen(call, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for call in calls
    ]
    told = [job.communicate(timeout=300) for job in jobs]
    for job, (_, errors) in zip(jobs, told, strict=True):
        if job.returncode:
            raise RuntimeError(f"a rank failed (exit code {job.returncode}): {errors}")
    return [out for out, _ in told]


def median(values):
    """Median and extremes of the rounds, and all of them in their order."""
    return {
        "median": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "rounds": [round(value, 4) for value in values],
    }
