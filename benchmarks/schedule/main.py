"""Records what the scheduler reaches: simulated, with sleeping ranks, under a real CPU quota."""

import argparse
import os
import statistics
import tempfile
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import bounded
import jobs
import simulated
from quiet import QUIET, awake

from hpc_train.bench.harness import alternate, circumstances, paired_ratios, write_results
from hpc_train.bench.quota import quota

POLICY = "schedule.policy={}"
# as many digits as fill whole batches: all steps are of one size
SLEEPING = [
    "data.train=builtin:digits/train[:1248]",
    "data.batch_size=208",
    "data.micro_batch_size=208",
    "task.name=sleeping:Sleeping",
    "task.milliseconds=1",
]
COMPUTING = [
    "data.train=builtin:digits/train[:1280]",
    "model.name=cnn",
    "model.hidden=64",
    "model.channels=[64,128]",
]
SHORT, LONG = 640, 1280  # samples of a batch: steps of 65 and of 130 ms under a quota
# seconds of four ranks, relative to an undisturbed one, 200 steps each: jumps by 4, 2, 0.5, 4, 0.5
DRIFT = [(1, 1, 1, 1), (1, 4, 1, 1), (1, 4, 1, 2), (1, 2, 1, 2), (4, 2, 1, 2), (4, 2, 1, 1)]
DRIFT_STEPS = 200


def against_static(folder, rounds, ranks, settings, *options):
    """min_finish_time over equal shares, samples a second."""
    rates = {"static": [], "min_finish_time": []}
    for _, policy in alternate(list(rates), rounds):
        words = [*settings, POLICY.format(policy)]
        rates[policy].append(jobs.train(folder, ranks, words, *options))
    return jobs.median(paired_ratios(rates["min_finish_time"], rates["static"]))


def computing_equal(folder, rounds):
    """min_finish_time over equal shares on equal ranks that compute, both by turns."""
    sides = ("static", "min_finish_time")
    settings = [*COMPUTING, f"data.batch_size={SHORT}"]
    found = []
    for _ in range(rounds):
        words = {policy: [*settings, POLICY.format(policy)] for policy in sides}
        told = jobs.by_turns(folder, 2, words, SHORT)
        (static, _), (ours, changes) = (told[side] for side in sides)
        print(f"  {static:.0f}, {ours:.0f} ({ours / static:.3f}); plans: {changes}", flush=True)
        found.append((ours / static, changes))
    ratios, changes = zip(*found, strict=True)
    return {**jobs.median(ratios), "changes of plan": changes}


def claimed(folder, rounds, spread, *options):
    """dynamic over min_finish_time and over equal shares, and of what even finishes would give."""
    settings = [*SLEEPING, "task.milliseconds=4", f"task.spread={spread}", "run.steps=70"]
    rates = {"static": [], "min_finish_time": [], "dynamic": []}
    for _, policy in alternate(list(rates), rounds):
        words = [*settings, POLICY.format(policy)]
        rates[policy].append(jobs.train(folder, 4, words, *options))
    ours = rates["dynamic"]
    return {
        "over min_finish_time": jobs.median(paired_ratios(ours, rates["min_finish_time"])),
        "over equal shares": jobs.median(paired_ratios(ours, rates["static"])),
        "samples a second": jobs.median(ours),
    }


def under_quota(folder, rounds, period_us, batch_size, *, sum_only):
    """Two ranks, one at a third of a core: over the sum of solo rates, equal shares, and DDP.

    `sum_only`: only the first of them.
    """
    settings = [*COMPUTING, f"data.batch_size={batch_size}"]
    found = []
    for _ in range(rounds):
        with quota(1 / 3, period_us) as group:
            if group is None:
                return None
            together, *alone = jobs.in_turns(
                folder, group, [*settings, POLICY.format("min_finish_time")], batch_size
            )
            part = together / sum(alone)
            rates = [round(rate) for rate in (together, *alone)]
            print("  together {}, alone {} and {}".format(*rates), f"({part:.3f})", flush=True)
            if sum_only:
                found.append((part,))
                continue
            words = [*settings, POLICY.format("static"), "run.steps=40"]
            static = jobs.train_with_quota(folder, group, words, 10)
            ddp = jobs.ddp_with_quota(group, batch_size, 40, 10)
            print(f"  equal shares {static:.0f}, DDP {ddp:.0f}", flush=True)
            found.append((part, together / static, together / ddp))
    titles = ("of the sum of solo rates", "vs equal shares", "vs DDP (gloo)")
    rows = list(zip(*found, strict=True))
    return {title: jobs.median(row) for title, row in zip(titles, rows, strict=False)}


def hundred_times_slower(folder, rounds):
    """A fast rank and one 100 times slower, over the fast one alone, samples a second."""
    settings = [*SLEEPING, "task.milliseconds=0.1", "run.steps=300"]
    sides = {
        "both": (2, [*settings, POLICY.format("min_finish_time")], ("--inject", "slow:1=100x")),
        "alone": (1, settings, ()),
    }
    rates = {"both": [], "alone": []}
    for _, side in alternate(list(rates), rounds):
        ranks, words, options = sides[side]
        rates[side].append(jobs.train(folder, ranks, words, *options, skipped=50))
    return jobs.median(paired_ratios(rates["both"], rates["alone"]))


def drifting(folder, rounds):
    """Speeds that jump every 200 steps, over an oracle: shares stated as the speeds are."""
    jitter = ("--inject", "jitter:2%")
    found = []
    for _ in range(rounds):
        options = list(jitter)
        for part, factors in enumerate(DRIFT):
            where = f"@{part * DRIFT_STEPS}-{(part + 1) * DRIFT_STEPS - 1}"
            for rank, factor in enumerate(factors):
                if factor > 1:
                    options += ["--inject", f"slow:{rank}={factor}x{where}"]
        steps = f"run.steps={DRIFT_STEPS * len(DRIFT)}"
        ours = jobs.train(folder, 4, [*SLEEPING, steps, POLICY.format("min_finish_time")], *options)
        oracle = []
        for factors in DRIFT:
            shares = f"schedule.shares={[1 / factor for factor in factors]}"
            slow = [f"slow:{rank}={factor}x" for rank, factor in enumerate(factors)]
            options = [word for one in slow for word in ("--inject", one)]
            words = [*SLEEPING, "run.steps=60", shares]
            oracle.append(jobs.train(folder, 4, words, *jitter, *options, skipped=20))
        found.append(ours / statistics.harmonic_mean(oracle))
    return jobs.median(found)


def bounded_staleness(folder, rounds):
    """8 workers with jitter: staleness 3 over 0, and that over what a simulation promises."""
    settings = [
        *SLEEPING,
        "data.train=builtin:digits/train[:1280]",
        "data.batch_size=64",
        "data.micro_batch_size=8",
        "task.milliseconds=20",
        "task.spread=0.2",
        "run.steps=100",
        "strategy.name=parameter_server",
        "schedule.policy=static",
    ]
    rates = {0: [], 3: []}
    for _, staleness in alternate(list(rates), rounds):
        words = [*settings, f"strategy.staleness={staleness}"]
        rates[staleness].append(jobs.train(folder, 8, words, skipped=10))
    gains = paired_ratios(rates[3], rates[0])
    promised = bounded.bound(8, 3, 0.2)
    return {
        "over synchronous": jobs.median(gains),
        "simulated bound": promised,
        "of the bound": jobs.median([gain / promised for gain in gains]),
    }


def everything(folder, rounds, *, sum_only=False):
    """The rows, by name, each a function that measures it."""
    slow = ("--inject", "slow:3=4x")
    short = "run.steps=80"
    limited = partial(under_quota, folder, rounds, sum_only=sum_only)
    return {
        "simulated": simulated.figures,
        "computing-equal": lambda: computing_equal(folder, rounds),
        "sleeping-4441": lambda: against_static(folder, rounds, 4, [*SLEEPING, short], *slow),
        "sleeping-equal": lambda: against_static(folder, rounds, 4, [*SLEEPING, "run.steps=160"]),
        "claims-lognormal": lambda: claimed(folder, rounds, 0.2),
        "claims-exponential": lambda: claimed(folder, rounds, 0, "--inject", "jitter:20%"),
        "claims-unequal": lambda: claimed(folder, rounds, 0.2, *slow),
        "claims-quiet": lambda: claimed(folder, rounds, 0),
        "sleeping-100x": lambda: hundred_times_slower(folder, rounds),
        "sleeping-drift": lambda: drifting(folder, rounds),
        "bounded-staleness": lambda: bounded_staleness(folder, rounds),
        "quota-5ms": lambda: limited(5_000, LONG),
        "quota-5ms-short": lambda: limited(5_000, SHORT),
        "quota-100ms": lambda: limited(100_000, LONG),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="what to measure; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="schedule", help="of the file below results/")
    parser.add_argument("--awake", action="store_true", help="let no core idle (root)")
    parser.add_argument("--sum-only", action="store_true", help="quota: no equal shares, no DDP")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, awake() if asked.awake else nullcontext():
        measures = everything(Path(name), asked.rounds, sum_only=asked.sum_only)
        if unknown := set(asked.rows) - set(measures):
            parser.error(f"unknown rows: {', '.join(unknown)}; known: {', '.join(measures)}")
        figures = {}
        for row in asked.rows or measures:
            figures[row] = measures[row]()
            print(f"{row}: {figures[row]}", flush=True)
            record(asked, figures)


def record(asked, figures):
    """Write what is known so far: who is interrupted keeps the rows that are done."""
    document = {
        "rounds": asked.rounds,
        "figures": figures,
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "awake": asked.awake,
        "others_share_of_cores": round(QUIET.worst, 4),
        "repeated_since_disturbed": QUIET.repeated,
        "environment": circumstances(),
    }
    write_results(Path(__file__).parent / "results" / f"{asked.name}.json", document)


if __name__ == "__main__":
    main()
