"""What searching costs and gains: `python benchmarks/tune/main.py SUBJECT`; see README.md."""

import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from functions import history, samplers

from hpc_train.bench.harness import circumstances, write_results
from hpc_train.tune import read_study
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


def text(name: str, trials: int, overrides: list[str], space: list[str], more: str = "") -> str:
    """A study of `digits-cnn`."""
    return "\n".join(
        [
            f'[study]\nname = "{name}"\nconfig = "digits-cnn"\ntrials = {trials}',
            f"overrides = {json.dumps([*DATA, *overrides])}",
            '[[objective]]\nmetric = "max accuracy"\nvalue = "best"',
            more,
            "[space]",
            *space,
        ]
    )


def command(ranks: int, study: Path, *words: str) -> list[str]:
    """The command line of a study."""
    return [sys.executable, "-m", "hpc_train", "tune", str(study), "-n", str(ranks), *words]


def search(folder: Path, ranks: int, content: str, *words: str) -> dict:
    """Run a study to its end; its report, and the seconds from first to last trial."""
    path = folder / "study.toml"
    path.write_text(content)
    ended = subprocess.run(
        command(ranks, path, *words), cwd=folder, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    (name,) = (folder / "studies").iterdir()
    found = read_study(name)
    parts = [part for trial in found.trials for part in trial.parts]
    makespan = max(p["stop"] for p in parts) - min(p["start"] for p in parts)
    return {**report(found), "makespan": makespan}


def groups() -> dict:
    """16 trials of unequal length on 4 ranks, beside the fixed assignment in turn."""
    random_ = random.Random(0)
    epochs = sorted(round(4 * 8 ** random_.random()) for _ in range(16))
    random_.shuffle(epochs)
    space = [f'"run.epochs" = {{ type = "categorical", choices = {sorted(set(epochs))} }}']
    space += ['"optimizer.lr" = { type = "float", low = 3e-3, high = 4e-3 }']
    rounds = []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as name:
            told = search(
                Path(name), 4, text("groups", 16, [], space, '[sampler]\nname = "random"')
            )
        # what the same trials take, as measured, on rank number % 4, each rank in turn
        seconds = [sum(p["stop"] - p["start"] for p in t["parts"]) for t in told["trials"]]
        turns = max(sum(seconds[rank::4]) for rank in range(4))
        rounds.append(
            {
                "utilisation": told["utilisation"],
                "makespan": told["makespan"],
                "round_robin": turns,
                "faster": turns / told["makespan"],
                "overhead_seconds_per_trial": told["overhead_seconds_per_trial"],
            }
        )
        print(rounds[-1], flush=True)
    return {
        "rounds": rounds,
        **{key: statistics.median(r[key] for r in rounds) for key in rounds[0]},
    }


def asha() -> dict:
    """Rank-seconds of 30 trials with ASHA and without, and the best accuracy of both."""
    rounds = []
    for seed in range(3):
        sides = {}
        for name in ("none", "asha"):
            more = f'[sampler]\nname = "random"\n[pruner]\nname = "{name}"\nreduction = 3'
            with tempfile.TemporaryDirectory() as folder:
                content = text("asha", 30, ["run.epochs=9"], [LR, WIDTH], more)
                told = search(Path(folder), 2, content, f"study.seed={seed}")
            seconds = sum(trial["rank_seconds"] for trial in told["trials"])
            sides[name] = {"seconds": seconds, "best": told["best"][0]["values"][0]}
        ratio = sides["asha"]["seconds"] / sides["none"]["seconds"]
        lost = sides["none"]["best"] - sides["asha"]["best"]
        rounds.append({**sides, "seconds_ratio": ratio, "accuracy_lost": lost})
        print(rounds[-1], flush=True)
    return {
        "rounds": rounds,
        "seconds_ratio": statistics.median(r["seconds_ratio"] for r in rounds),
        "accuracy_lost": statistics.median(r["accuracy_lost"] for r in rounds),
    }


def digits() -> dict:
    """The best accuracy of `digits-cnn` after 30 trials: Bayesian beside random, 10 seeds."""
    found: dict = {"random": [], "tpe": []}
    for seed in range(10):
        for name in found:
            content = text(
                "digits", 30, ["run.epochs=3"], [LR, WIDTH], f'[sampler]\nname = "{name}"'
            )
            with tempfile.TemporaryDirectory() as folder:
                told = search(Path(folder), 2, content, f"study.seed={seed}")
            found[name].append(told["best"][0]["values"][0])
        print({name: values[-1] for name, values in found.items()}, flush=True)
    return {name: {"median": statistics.median(v), "best": v} for name, v in found.items()}


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
            time.sleep(chance.uniform(0.0, 4.0))
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
    "asha": asha,
    "digits": digits,
}


def main(subject: str) -> None:
    """Measure one subject; print and record."""
    began = time.monotonic()
    found = SUBJECTS[subject]()
    document = {"subject": subject, "found": found, "seconds": round(time.monotonic() - began, 1)}
    write_results(HERE / "results" / f"{subject}.json", {**document, **circumstances()})
    print(json.dumps(found, indent=2)[:3000])


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in SUBJECTS:
        raise SystemExit(f"usage: main.py {'|'.join(SUBJECTS)}")
    main(sys.argv[1])
