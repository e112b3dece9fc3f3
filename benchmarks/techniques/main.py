"""What recipes reach: `python benchmarks/techniques/main.py STUDY`; see README.md."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hpc_train.bench.harness import circumstances, write_results

HERE = Path(__file__).parent
MNIST = HERE.parents[2] / "shared" / "data" / "mnist_t10k" / "t10k-images-idx3-ubyte.gz"
PLAIN = ["augmentation=[]", "regularization.label_smoothing=0"]

# study -> how often, and the command lines of its sides: a recipe and overrides
STUDIES = {
    "mnist-cnn": (
        5,
        {
            "without augmentation and label smoothing": ["mnist-cnn", *PLAIN],
            "with both": ["mnist-cnn"],
        },
    ),
    "digits-cnn": (5, {"as it is": ["digits-cnn"]}),
    "digits-transfer": (
        3,
        {
            "from scratch": ["digits-transfer", "transfer={}"],
            "features of 0 to 4": ["digits-transfer"],
        },
    ),
    "digits-ensemble": (
        3,
        {"ensemble": ["digits-ensemble"], "one alone": ["digits-ensemble", "ensemble.members=1"]},
    ),
}

# study -> what is trained once for each seed, before its sides: they take the newest run
BEFORE = {"digits-transfer": ["digits-features", "checkpoint.every=500 steps"]}


def train(folder: Path, words: list[str], seed: int) -> dict:
    """The result of one run, on one thread of this process's machine."""
    program = [sys.executable, "-m", "hpc_train", "run", words[0], "checkpoint.every=never"]
    program += [*words[1:], f"run.seed={seed}", "device.threads=1", "--json"]
    ended = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{ended.stderr}")
    return json.loads(ended.stdout)


def main(study: str, mnist: Path = MNIST) -> None:
    """Train every side with every seed, taking turns; print and record."""
    rounds, sides = STUDIES[study]
    found: dict[str, list[float]] = {name: [] for name in sides}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if study.startswith("mnist"):
            program = [sys.executable, "-m", "hpc_train", "data", "import", str(mnist), "mnist"]
            subprocess.run(program, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for seed in range(rounds):
            if study in BEFORE:
                train(folder, BEFORE[study], seed)
            for name, words in sides.items():
                accuracy = train(folder, words, seed)["metrics"]["test"]["accuracy"]
                found[name].append(accuracy)
                print(f"seed {seed}  {name:<42} {accuracy:.4f}", flush=True)
    means = {name: statistics.mean(values) for name, values in found.items()}
    for name, mean in means.items():
        print(f"mean    {name:<42} {mean:.4f}")
    write_results(
        HERE / "results" / f"{study}.json",
        {
            "benchmark": f"techniques/{study}",
            "commands": {name: " ".join(words) for name, words in sides.items()},
            "test_accuracy": found,
            "mean": means,
            "environment": circumstances(),
        },
    )


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in STUDIES:
        raise SystemExit(f"usage: main.py {{{','.join(STUDIES)}}} [t10k-images-idx3-ubyte.gz]")
    main(sys.argv[1], *map(Path, sys.argv[2:3]))
