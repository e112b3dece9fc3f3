"""What bounded staleness costs in accuracy: `mnist-cnn` with 8 workers of a parameter server.

    python accuracy.py t10k-images-idx3-ubyte.gz [SEEDS [EPOCHS]]

Timing plays no part: 8 ranks on few cores are late by turns anyway, and the histogram of
staleness that is recorded says how stale the gradients were.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from hpc_train.bench.harness import circumstances, write_results

WORKERS = 8
SERVER = "strategy.name=parameter_server"
SIDES = {
    "one process": (1, []),
    "staleness 3": (WORKERS, [SERVER, "strategy.staleness=3"]),
    "staleness 0": (WORKERS, [SERVER, "strategy.staleness=0"]),
}


def train(folder, ranks, settings, seed):
    """The result of one run; it is patient with ranks that others keep from computing."""
    words = ["run", "mnist-cnn", "-n", ranks, *settings, f"run.seed={seed}", "run.evaluate=never"]
    words += ["checkpoint.every=never", "device.threads=1", "recovery.on_hang=wait", "--json"]
    call = [sys.executable, "-m", "hpc_train", *map(str, words)]
    ended = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(call)} failed:\n{ended.stderr}")
    return json.loads(ended.stdout)


def main(images, seeds=3, epochs=15):
    accuracies = {side: [] for side in SIDES}
    histogram = {}
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "hpc_train", "data", "import", images, "mnist"]
        subprocess.run(program, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        for seed in range(seeds):
            for side, (ranks, settings) in SIDES.items():
                result = train(folder, ranks, [*settings, f"run.epochs={epochs}"], seed)
                accuracies[side].append(result["metrics"]["test"]["accuracy"])
                print(f"seed {seed}  {side:<12} {accuracies[side][-1]:.4f}", flush=True)
                if side == "staleness 3":
                    for lacked, times in result["staleness"].items():
                        histogram[lacked] = histogram.get(lacked, 0) + times
            report(accuracies, histogram, epochs)


def report(accuracies, histogram, epochs):
    """Print and record what is known so far."""
    means = {side: statistics.mean(values) for side, values in accuracies.items()}
    document = {
        "epochs": epochs,
        "test_accuracy": accuracies,
        "mean": means,
        "points lost by staleness 3": 100 * (means["one process"] - means["staleness 3"]),
        "updates by how many others they lacked": histogram,
        "environment": circumstances(),
    }
    print(json.dumps({k: document[k] for k in list(document)[2:5]}, indent=1), flush=True)
    write_results(Path(__file__).parent / "results" / "accuracy.json", document)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit("usage: accuracy.py t10k-images-idx3-ubyte.gz [SEEDS [EPOCHS]]")
    main(str(Path(sys.argv[1]).resolve()), *map(int, sys.argv[2:4]))
