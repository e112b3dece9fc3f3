"""What failures cost: `python benchmarks/reliability/main.py [PART ...]`; see README.md."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from subprocess import Popen

import numpy as np
import timed
from jobs import Job, Outcome, count_events, disturb, last_step, verdict

from hpc_train.bench.harness import (
    circumstances,
    paired_ratios,
    read_results,
    write_results,
)
from hpc_train.bench.turns import take_turns
from hpc_train.record import hearing, listening, operation, phase
from hpc_train.recovery.flight import Tape
from hpc_train.recovery.patience import Patience
from hpc_train.recovery.recorder import Recorder

HERE = Path(__file__).parent
KILLS, TIMED, STOPS = 200, 60, 20
EPOCHS, HIDDEN = 150, 128  # enough steps for five kills
ALARM_STEPS, ALARM_EPOCHS = 10**4, 109  # of 23 steps: a job is a quarter of them
ROUNDS = 20
RESPAWN_SECONDS, KILL_EVERY = 180.0, 10.0
RESPAWN_HIDDEN, STEADY = 512, 300  # so many batches after which nothing is imported any more
# two hidden layers of so many, global batch: 0.6 million weights, and 0.09 with more to do for each
OVERHEAD = {"many weights": (768, 84), "few weights": (272, 719)}
OVERHEAD_STEPS, WARM_UP = 300, 60
PROBLEMS = ("hang", "failed", "samples", "weights")


@dataclass(frozen=True)
class Asked:
    """How a part is measured.

    Attributes:
        path: where its results go.
        recorded: the jobs there, to go on with.
        seconds: after which no further job is begun.
    """

    path: Path
    recorded: list[dict]
    seconds: float

    def keep(self, found: dict) -> None:
        """Write down what is known by now."""
        write_results(
            self.path,
            {"benchmark": f"reliability {self.path.stem}", "environment": circumstances(), **found},
        )


def failures(folder: Path, number: int, total: int, asked: Asked) -> dict:
    """Jobs of 3 to 6 ranks whose ranks are lost, until there were `total` losses."""
    calm = Job(folder / "calm", 1, EPOCHS, HIDDEN)
    calm.end()
    outcomes = [Outcome(**one) for one in asked.recorded]
    until = time.monotonic() + asked.seconds
    while sum(one.kills for one in outcomes) < total and time.monotonic() < until:
        ranks = 3 + len(outcomes) % 4
        job = Job(folder / f"job-{len(outcomes)}", ranks, EPOCHS, HIDDEN)
        outcome = disturb(job, ranks, number, random.Random(len(outcomes)), pause=0.4)
        outcome.problem = verdict(job, calm.run)
        if outcome.problem:
            outcome.text = job.text()
            print(f"{outcome.problem} in job {len(outcomes)}:\n{outcome.text}", file=sys.stderr)
        job.close()
        outcomes.append(outcome)
        asked.keep(losses(outcomes))
        print(f"{sum(o.kills for o in outcomes)} of {total}", file=sys.stderr)
        if len(outcomes) > 5 and not any(o.kills for o in outcomes):
            sys.exit("no rank could be reached")
    return losses(outcomes)


def losses(outcomes: list[Outcome]) -> dict:
    """What became of all jobs so far."""
    recoveries = [seconds for one in outcomes for seconds in one.recoveries]
    return {
        "jobs": len(outcomes),
        "lost": sum(one.kills for one in outcomes),
        **{what: sum(o.problem == what for o in outcomes) for what in PROBLEMS},
        "recoveries": len(recoveries),
        "median_seconds": float(np.median(recoveries)),
        "p99_seconds": float(np.quantile(recoveries, 0.99)),
        "largest_seconds": max(recoveries),
        "each": [asdict(one) for one in outcomes],
    }


def kills(folder: Path, asked: Asked) -> dict:
    """SIGKILL at random instants."""
    return failures(folder, signal.SIGKILL, KILLS, asked)


def recovery(folder: Path, asked: Asked) -> dict:
    """The same, for its seconds: to be measured on a quiet machine."""
    return failures(folder, signal.SIGKILL, TIMED, asked)


def stops(folder: Path, asked: Asked) -> dict:
    """SIGSTOP at random instants: the watchdog must find it."""
    return failures(folder, signal.SIGSTOP, STOPS, asked)


def alarms(folder: Path, asked: Asked) -> dict:
    """10^4 steps of 8 ranks, while another process keeps a core busy; the watchdog's floor is 1 s.

    The default is 60 s: what does not trip one second will not trip a minute.
    """
    jobs = list(asked.recorded)
    until = time.monotonic() + asked.seconds
    while sum(job["steps"] for job in jobs) < ALARM_STEPS and time.monotonic() < until:
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as load:
            try:
                place = folder / f"job-{len(jobs)}"
                job = Job(place, 8, ALARM_EPOCHS, 8, "recovery.hang_seconds=1.0")
                problem = job.end()
            finally:
                load.kill()
        text = job.text()
        steps = (job.run / "metrics.jsonl").read_text().count('"kind": "step"')
        false = text.count("error: rank ")
        job.close()
        kept = {"steps": steps, "alarms": false, "problem": problem, "text": text if false else ""}
        jobs.append({**kept, "load_average": os.getloadavg()[0]})
        asked.keep(false_alarms(jobs))
    return false_alarms(jobs)


def false_alarms(jobs: list[dict]) -> dict:
    """What all jobs so far come to."""
    return {
        "steps": sum(job["steps"] for job in jobs),
        "alarms": sum(job["alarms"] for job in jobs),
        "problems": sum(bool(job["problem"]) for job in jobs),
        "each": jobs,
    }


def respawn(folder: Path, asked: Asked) -> dict:
    """Steps of 4 ranks, one of which is killed every 10 s and replaced, against an undisturbed run.

    Both are measured from when all ranks have trained for a while; the undisturbed run for a third
    of the time.
    """
    rng, seconds = random.Random(1), RESPAWN_SECONDS
    big = ["run.epochs=9999", "recovery.respawn=true", "data.batch_size=512"]
    calm = Job(folder / "calm", 4, EPOCHS, RESPAWN_HIDDEN, *big)
    calm.wait_for(4, STEADY)
    rate = _rate(calm, seconds / 3)
    calm.stop()
    calm.close()
    job = Job(folder / "job", 4, EPOCHS, RESPAWN_HIDDEN, *big)
    job.wait_for(4, STEADY)
    started, begun = time.monotonic(), last_step(job.run)
    full: list[float] = []
    deaths = 0
    while time.monotonic() - started < seconds - KILL_EVERY and job.running:
        time.sleep(max(0.0, started + deaths * KILL_EVERY + rng.uniform(0, 2) - time.monotonic()))
        tape = rng.choice(list(job.tapes().values()))
        joined, killed = count_events(job.run, "joined"), time.monotonic()
        os.kill(tape.pid, signal.SIGKILL)
        deaths += 1
        while count_events(job.run, "joined") == joined and job.running:
            time.sleep(0.1)
            if time.monotonic() - killed > 60:
                sys.exit(job.text())
        full.append(time.monotonic() - killed)
    time.sleep(max(0.0, started + seconds - time.monotonic()))
    steps_done, elapsed = last_step(job.run) - begun, time.monotonic() - started
    running = job.running
    job.stop()
    job.close()
    return {
        "seconds": elapsed,
        "kills": deaths,
        "running_to_the_end": running,
        "undisturbed_steps_per_second": rate,
        "steps_per_second": steps_done / elapsed,
        "goodput": steps_done / elapsed / rate,
        "full_membership_seconds": full,
        "median_seconds": float(np.median(full)),
        "largest_seconds": max(full),
    }


def _rate(job: Job, seconds: float) -> float:
    """Steps per second of a running job."""
    started, begun = time.monotonic(), last_step(job.run)
    time.sleep(seconds)
    return (last_step(job.run) - begun) / (time.monotonic() - started)


def cost(folder: Path, asked: Asked) -> dict:
    """Microseconds of a step that recorder and watchdog take: the phases of a step, recorded."""
    recorder = Recorder(Tape.create(folder / "rank-0000.flight", 0), Patience(60.0))

    def step(batch: int) -> None:
        for name in ("data", "compute"):
            with phase(name, batch=batch):
                pass
        with phase("checkpoint", operation="copy"):
            pass
        with phase("communication", operation="reduce"):
            operation("reduce", 10**6)
            operation("sum", 200)
        for name in ("update", "schedule"):
            with phase(name):
                pass

    def microseconds() -> float:
        started = time.perf_counter()
        for batch in range(1000):
            step(batch)
        return 1e3 * (time.perf_counter() - started)

    plain = [microseconds() for _ in range(20)]
    with listening(recorder), hearing(recorder.hear):
        recorded = [microseconds() for _ in range(20)]
    extra = float(np.median(recorded) - np.median(plain))
    return {"microseconds_per_step": extra, "share_of_10_ms": extra / 1e4}


def overhead(folder: Path, asked: Asked) -> dict:
    """Steps of 2 ranks, of some 10 ms, with all of it, a part, and without; by turns, medians."""
    found = {}
    for name, network in OVERHEAD.items():
        found[name] = compared(folder / name, *network, asked.seconds / len(OVERHEAD))
        asked.keep(found)
    return found


def compared(folder: Path, hidden: int, batch_size: int, seconds: float) -> dict:
    """One network, in groups of jobs that take turns of a fraction of a second.

    Shares are equal throughout: a turn that ends in the middle of a step looks like a slow rank.
    """
    until = time.monotonic() + seconds
    # "watched": recorder, watchdog, fault-tolerant MPI; what goes on without a lost rank needs more
    sides = {
        "without": ["recovery.watch=false", "recovery.shrink=false"],
        "watched": ["recovery.shrink=false"],
        "with": [],
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(ROUNDS):
        order = list(sides)[:: -1 if number % 2 else 1]
        jobs: dict[str, Job] = {}

        def start(name: str, jobs: dict[str, Job] = jobs, number: int = number) -> Popen[bytes]:
            more = [*sides[name], f"data.batch_size={batch_size}", f"run.steps={OVERHEAD_STEPS}"]
            more += ["run.evaluate=never", "checkpoint.every=never", "task.name=timed:Timed"]
            more += ["schedule.policy=static"]
            place = folder / f"{name}-{number}"
            told = {timed.PLACE: f"{place}.times", "PYTHONPATH": f"{HERE}:{HERE.parents[1]}"}
            tolerant = name != "without"
            job = Job(place, 2, 1, hidden, *more, fault_tolerant=tolerant, environ=told)
            jobs[name] = job
            return job.process

        def trains(name: str, jobs: dict[str, Job] = jobs) -> bool:
            return (jobs[name].run / "metrics.jsonl").exists()

        take_turns([partial(start, one) for one in order], [partial(trains, one) for one in order])
        for name, job in jobs.items():
            if not (job.run / "result.json").exists():
                sys.exit(job.text())
            rounds[name].append(median_step(job.run, Path(f"{folder / name}-{number}.times")))
            job.close()
        if time.monotonic() > until:
            break
    steps = {name: [one["step"] for one in rounds[name]] for name in sides}
    ratios = {name: paired_ratios(steps[name], steps["without"]) for name in ("watched", "with")}
    parts = {
        part: [float(np.median([one.get(part, 0.0) for one in rounds[name]])) for name in sides]
        for part in rounds["with"][0]
    }
    return {
        "ratios": ratios,
        "median_cost": {name: float(np.median(found)) - 1 for name, found in ratios.items()},
        "milliseconds_without_watched_with": parts,
        "rounds": rounds,
    }


def median_step(run: Path, times: Path) -> dict[str, float]:
    """Milliseconds from one step to the next on rank 0, and of each of their phases; medians."""
    began = np.fromfile(times, np.float64)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [one for one in map(json.loads, lines) if one["kind"] == "step"][WARM_UP:]
    told = {"step": [1e3 * seconds for seconds in np.diff(began)[WARM_UP:]]}
    for part in records[-1]["seconds"]:
        told[part] = [1e3 * one["seconds"].get(part, 0.0) for one in records]
    return {part: float(np.median(values)) for part, values in told.items()}


PARTS = {
    "kills": kills,
    "recovery": recovery,
    "stops": stops,
    "alarms": alarms,
    "respawn": respawn,
    "cost": cost,
    "overhead": overhead,
}


def main() -> None:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--add", action="store_true", help="go on with the jobs on record")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begin no job after them")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    told = parser.parse_args()
    for part in told.part:
        path = told.out / f"{part}.json"
        recorded = read_results(path).get("each", []) if told.add and path.exists() else []
        asked = Asked(path, recorded, told.seconds)
        with tempfile.TemporaryDirectory() as folder:
            found = PARTS[part](Path(folder), asked)
        print(part, {key: value for key, value in found.items() if key != "each"})
        asked.keep(found)


if __name__ == "__main__":
    main()
