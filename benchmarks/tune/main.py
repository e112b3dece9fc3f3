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

from hpc_train.bench.harness import (
    alternate,
    circumstances,
    paired_ratios,
    summary,
    write_results,
)
from hpc_train.bench.quota import inside, quota
from hpc_train.comm import connect
from hpc_train.launch import launching
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
HALF = [  # more validation samples, as one of them is 0.35 points of accuracy else
    "run.epochs=18",
    "data.train=builtin:digits/train[:800]",
    "data.validation=builtin:digits/train[800:]",
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


def groups(place: str = "", seeds: range = range(7), ranks: int = 4) -> dict:
    """16 trials of unequal length on 4 ranks, each on a part of a core, beside fixed turns.

    Args:
        place: a folder in which this goes on if it was interrupted.
        seeds: one round each.
        ranks: of the study.
    """
    space = ['"run.epochs" = { type = "int", low = 3, high = 24, log = true }']  # 1-8 units
    space += ['"optimizer.lr" = { type = "float", low = 3e-3, high = 4e-3 }']
    content = text("groups", 16, [], space, '[sampler]\nname = "random"')
    keys = ("utilisation", "makespan", "overhead_seconds_per_trial", "seconds_per_epoch")
    with ExitStack() as stack:
        state = kept(place, stack) / "groups.json"
        found = json.loads(state.read_text()) if state.exists() else {}
        for turn, side in alternate(("groups", "turns"), len(seeds)):
            number = seeds[turn]
            if f"{number} {side}" in found:
                continue
            with tempfile.TemporaryDirectory() as name:
                told = on_cores(Path(name), ranks, content, side, f"study.seed={number}")
            epochs = [trial["params"]["run.epochs"] for trial in told["trials"]]
            seconds = sum(trial["rank_seconds"] for trial in told["trials"])
            figures = {key: told[key] for key in keys[:-1]} | {
                "seconds_per_epoch": seconds / sum(epochs),
                "epochs": epochs,
            }
            found[f"{number} {side}"] = figures
            state.write_text(json.dumps(found))
            print(number, side, figures, flush=True)
    sides = {side: [found[f"{number} {side}"] for number in seeds] for side in ("groups", "turns")}
    spans = [[one["makespan"] for one in sides[side]] for side in ("turns", "groups")]
    return {
        "faster": vars(summary(paired_ratios(*spans))),
        "faster_at_most": vars(summary([at_most(one["epochs"], ranks) for one in sides["turns"]])),
        **{
            side: {key: vars(summary([one[key] for one in rows])) for key in keys}
            for side, rows in sides.items()
        },
        "rounds": found,
    }


def at_most(lengths: list[float], ranks: int) -> float:
    """How many times faster than fixed turns any assignment to ranks of one speed can be."""
    turns = max(sum(lengths[rank::ranks]) for rank in range(ranks))
    return turns / max(sum(lengths) / ranks, *lengths)


def kept(place: str, stack: ExitStack) -> Path:
    """The folder `place`, which stays; without a name one that does not."""
    folder = Path(place or stack.enter_context(tempfile.TemporaryDirectory())).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


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
    """Run a study with each rank on a part of a core of its own, or on the `whole` machine.

    Args:
        folder: where to.
        ranks: how many.
        content: the study.
        side: "groups" or "turns".
        words: overrides of it.
        whole: as a user would, without `turns.py`.
    """
    path = folder / "study.toml"
    path.write_text(content)
    part = min(1.0, 0.9 * len(os.sched_getaffinity(0)) / ranks)
    start = ["-m", "hpc_train"] if whole else [str(HERE / "turns.py"), side]
    program = [sys.executable, *start, "tune", str(path), *words]
    with ExitStack() as stack:
        for rank in range(ranks):
            group = None if whole else stack.enter_context(quota(part))
            program = program if group is None else inside(group, program, only_rank=rank)
        call = stack.enter_context(launching(program, ranks))
        ended = subprocess.run(
            call.argv, cwd=folder, env=call.environ, capture_output=True, text=True
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
        more = f'[sampler]\nname = "random"\n[pruner]\nname = "{name}"\nreduction = 3\nleast = 3'
        told = alone(text("asha", 30, HALF, [LR, WIDTH], more), f"study.seed={seed}")
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


def asha(place: str = "", seeds: range = range(5)) -> dict:
    """What ASHA saves, and what it costs in accuracy."""
    rounds = each_seed("asha", seeds, place)
    keys = ("seconds_ratio", "epochs_ratio", "accuracy_lost")
    return {"rounds": rounds, **{k: statistics.median(r[k] for r in rounds) for k in keys}}


def digits_seed(seed: int) -> dict:
    """The best validation loss of `digits-cnn` after 30 trials of one seed, by sampler."""
    found = {}
    for name in ("random", "tpe"):
        more = f'[sampler]\nname = "{name}"'
        space = [LR.replace("1e-1", "1.0"), WIDTH]  # the best rate lies inside
        content = text("digits", 30, ["run.epochs=3"], space, more, "min loss")
        values = [t["values"][0] for t in alone(content, f"study.seed={seed}")["trials"]]
        found[name] = {"best": min(values), "best_by_trial": list(accumulate(values, min))}
    return found


def digits(place: str = "", seeds: range = range(10)) -> dict:
    """The best validation loss of `digits-cnn` after 30 trials: Bayesian beside random."""
    rows = each_seed("digits", seeds, place)
    return {
        name: {
            "median": statistics.median(row[name]["best"] for row in rows),
            "better_than_random": sum(row[name]["best"] < row["random"]["best"] for row in rows),
            "seeds": [row[name] for row in rows],
        }
        for name in rows[0]
    }


def each_seed(subject: str, seeds: range, place: str) -> list[dict]:
    """What each seed gives, in a process of its own, as many at a time as there are cores."""
    with ExitStack() as stack:
        folder = kept(place, stack)

        def ask(seed: int) -> dict:
            state = folder / f"{subject}-{seed}.json"
            if not state.exists():
                words = [sys.executable, __file__, subject, str(seed)]
                ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
                print(seed, ended.stdout.strip(), flush=True)
                state.write_text(ended.stdout)
            return json.loads(state.read_text())

        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            return list(pool.map(ask, seeds))


def kills(place: str = "", times: int = 20) -> dict:
    """A study killed at random instants and started again: trials lost, trials stuck.

    Args:
        place: a folder in which this goes on if it was interrupted.
        times: kills in all.
    """
    with ExitStack() as stack:
        folder = kept(place, stack)
        path, study, state = folder / "study.toml", folder / "studies" / "kills", folder / "state"
        more = '[sampler]\nname = "tpe"\nstartup_trials = 4'
        content = text("kills", 120, ["run.epochs=6"], [LR, WIDTH], more)
        path.write_text(content.replace("checkpoint.every=never", "checkpoint.every=1 epoch"))
        told = json.loads(state.read_text()) if state.exists() else {"lost": 0, "after": []}
        while len(told["after"]) < times:
            before = _finished(study)
            _kill(path, study, random.Random(len(told["after"])).uniform(0.0, 4.0))
            now = _finished(study)
            told["lost"] += sum(now.get(n) != values for n, values in before.items())
            told["after"].append(len(now))
            state.write_text(json.dumps(told))
            print(f"kill {len(told['after'])}: {told}", flush=True)
        before = _finished(study)
        subprocess.run(command(2, path), cwd=folder, capture_output=True, check=True)
        trials = read_study(study).trials
        told["lost"] += sum(trials[n].values != values for n, values in before.items())
        stuck = sum(trial.state != COMPLETE for trial in trials)
        return {"kills": times, "trials": len(trials), "lost": told["lost"], "stuck": stuck} | {
            "finished_after_each_kill": told["after"]
        }


def _kill(path: Path, study: Path, seconds: float) -> None:
    """Start a study, and end all of it so many seconds after its session has begun."""
    begun = _sessions(study)
    job = subprocess.Popen(
        command(2, path), cwd=path.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while job.poll() is None and _sessions(study) == begun:
        time.sleep(0.05)
    time.sleep(seconds)
    job.send_signal(signal.SIGKILL)  # the kernel ends its ranks with it
    job.wait()
    time.sleep(1.0)


def _finished(study: Path) -> dict:
    """The values of the trials of which nothing is left to do."""
    if not study.exists():
        return {}
    return {t.number: t.values for t in read_study(study).trials if t.is_finished}


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
IN_PIECES = ("asha", "digits", "groups", "kills")
BY_SEED = ("asha", "digits", "groups")
USAGE = f"""usage: main.py {"|".join(SUBJECTS)}
       main.py {"|".join(IN_PIECES)} FOLDER: keeps there what it has, and goes on if interrupted
       main.py {"|".join(BY_SEED)} FOLDER FIRST LAST: with other seeds, into results of their own"""


def main(subject: str, *place: str, seeds: range | None = None) -> None:
    """Measure one subject; print and record."""
    began = time.monotonic()
    found = SUBJECTS[subject](*place) if seeds is None else SUBJECTS[subject](*place, seeds)
    document = {"subject": subject, "found": found, "seconds": round(time.monotonic() - began, 1)}
    name = subject if seeds is None else f"{subject}-seeds-{seeds[0]}-{seeds[-1]}"
    write_results(HERE / "results" / f"{name}.json", {**document, **circumstances()})
    print(json.dumps(found, indent=2)[:3000])


if __name__ == "__main__":
    match sys.argv[1:]:
        case [subject, seed] if subject in SEEDS and seed.isdigit():
            print(json.dumps(SEEDS[subject](int(seed))))
        case [subject] if subject in SUBJECTS:
            main(subject)
        case [subject, folder] if subject in IN_PIECES:
            main(subject, folder)
        case [subject, folder, first, last] if subject in BY_SEED:
            main(subject, folder, seeds=range(int(first), int(last) + 1))
        case _:
            raise SystemExit(USAGE)
