"""What searching costs and gains: `python benchmarks/tune/main.py SUBJECT`; see README.md."""

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

from functions import history, samplers

from hpc_train.bench.harness import alternate, circumstances, summary, write_results
from hpc_train.bench.quota import inside, quota
from hpc_train.comm import connect
from hpc_train.launch import command as start_command
from hpc_train.launch import find
from hpc_train.launch.machine import this_machine
from hpc_train.stop import StopFlag
from hpc_train.tune import prepare, read_study, run
from hpc_train.tune.history import COMPLETE
from hpc_train.tune.report import report

HERE = Path(__file__).parent
DATA = [
    "data.train=builtin:digits/train[:1150]",
    "data.validation=builtin:digits/train[1150:]",
    "checkpoint.every=never",
    "device.threads=1",
]
WIDTHS = [[4, 8], [8, 16], [16, 32], [32, 64]]
LR = '"optimizer.lr" = { type = "float", low = 1e-4, high = 1e-1, log = true }'
WIDTH = f'"model.channels" = {{ type = "categorical", choices = {WIDTHS} }}'


def text(
    name: str,
    trials: int,
    overrides: list[str],
    space: list[str],
    more: str = "",
    metric: str = "max accuracy",
) -> str:
    """A study of `digits-cnn`."""
    return "\n".join(
        [
            f'[study]\nname = "{name}"\nconfig = "digits-cnn"\ntrials = {trials}',
            f"overrides = {json.dumps([*DATA, *overrides])}",
            f'[[objective]]\nmetric = "{metric}"\nvalue = "best"',
            more,
            "[space]",
            *space,
        ]
    )


def command(ranks: int, study: Path, *words: str) -> list[str]:
    """The command line of a study."""
    return [sys.executable, "-m", "hpc_train", "tune", str(study), "-n", str(ranks), *words]


def figures(folder: Path) -> dict:
    """The report of the only study in `folder`, and the seconds from first to last trial."""
    (name,) = (folder / "studies").iterdir()
    found = read_study(name)
    parts = [part for trial in found.trials for part in trial.parts]
    makespan = max(p["stop"] for p in parts) - min(p["start"] for p in parts)
    return {**report(found), "makespan": makespan}


def groups(rounds: int = 4, ranks: int = 4) -> dict:
    """16 trials of unequal length on 4 ranks of half a core each, beside fixed turns."""
    space = ['"run.epochs" = { type = "int", low = 3, high = 24, log = true }']  # 1-8 units
    space += ['"optimizer.lr" = { type = "float", low = 3e-3, high = 4e-3 }']
    content = text("groups", 16, [], space, '[sampler]\nname = "random"')
    found: list = []
    for number, side in alternate(("groups", "turns"), rounds):
        if side == "groups":
            found.append({})
        with tempfile.TemporaryDirectory() as name:
            told = on_cores(Path(name), ranks, content, side, f"study.seed={number}")
        found[-1][side] = {
            key: told[key]
            for key in ("utilisation", "makespan", "overhead_seconds_per_trial", "looking_share")
        }
        print(number, side, found[-1][side], flush=True)
    ours = [one["groups"] for one in found]
    return {
        "rounds": found,
        "faster": vars(summary([o["turns"]["makespan"] / o["groups"]["makespan"] for o in found])),
        **{key: vars(summary([one[key] for one in ours])) for key in ours[0]},
    }


def overhead(ranks: int = 2) -> dict:
    """Rank 0's seconds per trial for hearing, deciding, proposing and writing, by sampler."""
    found = {}
    space = ['"run.epochs" = { type = "int", low = 2, high = 8, log = true }', LR]
    for sampler in ("random", "tpe"):
        content = text("overhead", 24, [], space, f'[sampler]\nname = "{sampler}"')
        with tempfile.TemporaryDirectory() as name:
            told = on_cores(Path(name), ranks, content, "groups", whole=True)
        reports = sum(len(trial["reports"]) for trial in told["trials"])
        keys = ("overhead_seconds_per_trial", "looking_share", "utilisation")
        found[sampler] = {"trials": 24, "evaluations": reports, **{key: told[key] for key in keys}}
        print(sampler, found[sampler], flush=True)
    return found


def on_cores(
    folder: Path, ranks: int, content: str, side: str, *words: str, whole: bool = False
) -> dict:
    """Run a study with each rank on a part of a core of its own, if not on the `whole` machine."""
    path = folder / "study.toml"
    path.write_text(content)
    part = min(1.0, 0.95 * len(os.sched_getaffinity(0)) / ranks)
    start = [str(HERE / "turns.py")] if side == "turns" else ["-m", "hpc_train"]
    program = [sys.executable, *start, "tune", str(path), *words]
    with ExitStack() as stack:
        for rank in range(ranks):
            group = None if whole else stack.enter_context(quota(part))
            program = program if group is None else inside(group, program, only_rank=rank)
        argv, extra = start_command(
            find(os.environ), program, ranks=ranks, machine=this_machine(os.environ)
        )
        ended = subprocess.run(
            argv, cwd=folder, env={**os.environ, **extra}, capture_output=True, text=True
        )
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    return figures(folder)


def alone(content: str, *words: str) -> dict:
    """Run a study in this process, as its only rank; its report."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.toml"
        path.write_text(content)
        run(prepare(path, (*words, f"study.dir={folder}/study")), connect(), StopFlag())
        return report(read_study(Path(folder) / "study"))


def asha_seed(seed: int) -> dict:
    """Rank-seconds of 30 trials with ASHA and without, and the best accuracy of both."""
    sides = {}
    for name in ("none", "asha"):
        more = f'[sampler]\nname = "random"\n[pruner]\nname = "{name}"\nreduction = 3'
        told = alone(text("asha", 30, ["run.epochs=9"], [LR, WIDTH], more), f"study.seed={seed}")
        sides[name] = {
            "seconds": sum(trial["rank_seconds"] for trial in told["trials"]),
            "epochs": sum(len(trial["reports"]) for trial in told["trials"]),
            "best": told["best"][0]["values"][0],
        }
    none, pruned = sides["none"], sides["asha"]
    return {
        **sides,
        "seconds_ratio": pruned["seconds"] / none["seconds"],
        "epochs_ratio": pruned["epochs"] / none["epochs"],
        "accuracy_lost": none["best"] - pruned["best"],
    }


def asha(seeds: int = 3) -> dict:
    """What ASHA saves, and what it costs in accuracy."""
    rounds = each_seed("asha", seeds)
    keys = ("seconds_ratio", "epochs_ratio", "accuracy_lost")
    return {"rounds": rounds, **{k: statistics.median(r[k] for r in rounds) for k in keys}}


def digits_seed(seed: int) -> dict:
    """The best validation loss of `digits-cnn` after 30 trials of one seed, by sampler."""
    found = {}
    for name in ("random", "tpe", "gp"):
        more = f'[sampler]\nname = "{name}"'
        space = [LR.replace("1e-1", "1.0"), WIDTH]  # the best rate lies inside
        content = text("digits", 30, ["run.epochs=6"], space, more, "min loss")
        values = [t["values"][0] for t in alone(content, f"study.seed={seed}")["trials"]]
        found[name] = {"best": min(values), "best_by_trial": list(accumulate(values, min))}
    return found


def digits(seeds: int = 10) -> dict:
    """The best validation loss of `digits-cnn` after 30 trials: Bayesian beside random."""
    rows = each_seed("digits", seeds)
    return {
        name: {
            "median": statistics.median(row[name]["best"] for row in rows),
            "better_than_random": sum(row[name]["best"] < row["random"]["best"] for row in rows),
            "seeds": [row[name] for row in rows],
        }
        for name in rows[0]
    }


def each_seed(subject: str, seeds: int) -> list[dict]:
    """What each seed gives, in a process of its own, as many at a time as there are cores."""

    def ask(seed: int) -> dict:
        words = [sys.executable, __file__, subject, str(seed)]
        ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        print(seed, ended.stdout.strip(), flush=True)
        return json.loads(ended.stdout)

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(ask, range(seeds)))


def kills(times: int = 20) -> dict:
    """A study killed at random instants and started again: trials lost, trials stuck."""
    lost = stuck = 0
    chance = random.Random(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "study.toml"
        more = '[sampler]\nname = "tpe"\nstartup_trials = 4'
        content = text("kills", 40, ["run.epochs=4"], [LR, WIDTH], more)
        path.write_text(content.replace("checkpoint.every=never", "checkpoint.every=1 epoch"))
        done: dict = {}
        study = folder / "studies" / "kills"
        for number in range(times):
            job = subprocess.Popen(
                command(2, path), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            begun = len(read_study(study).sessions) if study.exists() else 0
            while job.poll() is None and _sessions(study) == begun:
                time.sleep(0.05)
            time.sleep(chance.uniform(0.0, 8.0))
            job.send_signal(signal.SIGKILL)  # the kernel ends its ranks with it
            job.wait()
            time.sleep(1.0)
            now = {t.number: t.values for t in read_study(study).trials if t.is_finished}
            lost += sum(now.get(n) != values for n, values in done.items())
            done = now
            print(f"kill {number + 1}: {len(done)} trials finished, {lost} lost", flush=True)
        subprocess.run(command(2, path), cwd=folder, capture_output=True, check=True)
        after = read_study(study).trials
        lost += sum(after[n].values != values for n, values in done.items())
        stuck = sum(trial.state != COMPLETE for trial in after)
        return {"kills": times, "trials": len(after), "lost": lost, "stuck": stuck}


def _sessions(study: Path) -> int:
    return len(read_study(study).sessions) if (study / "journal.jsonl").exists() else 0


SUBJECTS = {
    "samplers": lambda: samplers(30, 10),
    "history": lambda: history(60, 10),
    "kills": kills,
    "groups": groups,
    "overhead": overhead,
    "asha": asha,
    "digits": digits,
}


SEEDS = {"asha": asha_seed, "digits": digits_seed}


def main(subject: str) -> None:
    """Measure one subject; print and record."""
    began = time.monotonic()
    found = SUBJECTS[subject]()
    document = {"subject": subject, "found": found, "seconds": round(time.monotonic() - began, 1)}
    write_results(HERE / "results" / f"{subject}.json", {**document, **circumstances()})
    print(json.dumps(found, indent=2)[:3000])


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in SEEDS:
        print(json.dumps(SEEDS[sys.argv[1]](int(sys.argv[2]))))
        sys.exit()
    if len(sys.argv) != 2 or sys.argv[1] not in SUBJECTS:
        raise SystemExit(f"usage: main.py {'|'.join(SUBJECTS)}")
    main(sys.argv[1])
