"""Records what the scheduler reaches: simulated, with sleeping ranks, under a real CPU quota."""

import argparse
import tempfile
from pathlib import Path

import jobs
import simulated

from hpc_train.bench.harness import alternate, circumstances, write_results
from hpc_train.bench.quota import quota

POLICY = "schedule.policy={}"
# as many digits as fill whole batches: all steps are of one size
SLEEPING = [
    "data.train=builtin:digits/train[:1248]",
    "data.batch_size=208",
    "data.micro_batch_size=208",
    "task.name=sleeping:Sleeping",
    "task.milliseconds=0.5",
    "run.steps=60",
]
COMPUTING = [
    "data.train=builtin:digits/train[:1280]",
    "data.batch_size=256",
    "model.name=cnn",
    "model.hidden=64",
    "model.channels=[32,64]",
    "run.steps=100",
]


def sleeping(folder, rounds, *options):
    """Four ranks of sleeping compute: min_finish_time over equal shares, samples a second."""
    rates = {"static": [], "min_finish_time": []}
    for _, policy in alternate(list(rates), rounds):
        rates[policy].append(jobs.train(folder, 4, [*SLEEPING, POLICY.format(policy)], *options))
    pairs = zip(rates["min_finish_time"], rates["static"], strict=True)
    return jobs.median([ours / equal for ours, equal in pairs])


def under_quota(folder, rounds, period_us):
    """Two ranks, one at a third of a core: samples a second over the sum of solo rates."""
    found = []
    for _ in range(rounds):
        with quota(1 / 3, period_us) as group:
            if group is None:
                return None
            solo = sum(jobs.solo_rates(folder, group, COMPUTING))
            settings = [*COMPUTING, POLICY.format("min_finish_time")]
            equal = [*COMPUTING, POLICY.format("static")]
            ours = jobs.train_with_quota(folder, group, settings)
            static = jobs.train_with_quota(folder, group, equal)
            found.append((ours / solo, ours / static))
    return {
        "of the sum of solo rates": jobs.median([a for a, _ in found]),
        "vs equal shares": jobs.median([b for _, b in found]),
    }


def everything(folder, rounds):
    """The rows, by name, each a function that measures it."""
    slow = ("--inject", "slow:3=4x")
    return {
        "simulated": simulated.figures,
        "sleeping-4441": lambda: sleeping(folder, rounds, *slow),
        "sleeping-equal": lambda: sleeping(folder, rounds),
        "quota-5ms": lambda: under_quota(folder, rounds, 5_000),
        "quota-100ms": lambda: under_quota(folder, rounds, 100_000),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help="what to measure; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="schedule", help="of the file below results/")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measures = everything(Path(name), asked.rounds)
        if unknown := set(asked.rows) - set(measures):
            parser.error(f"unknown rows: {', '.join(unknown)}; known: {', '.join(measures)}")
        figures = {}
        for row in asked.rows or measures:
            figures[row] = measures[row]()
            print(f"{row}: {figures[row]}", flush=True)
    document = {"rounds": asked.rounds, "figures": figures, "environment": circumstances()}
    write_results(Path(__file__).parent / "results" / f"{asked.name}.json", document)


if __name__ == "__main__":
    main()
