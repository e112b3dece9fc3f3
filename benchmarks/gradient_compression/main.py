"""What compressing gradients costs in accuracy: `mnist-cnn` on several ranks; see README.md.

Every rank is a party of its own, as ranks of one node are where nothing is summed in shared memory,
so every gradient is compressed. What is trained, not how fast: timing plays no part.

python benchmarks/gradient_compression/main.py t10k-images-idx3-ubyte.gz [--seeds N] [--ranks N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hpc_train.bench.harness import circumstances, write_results

RESULTS = Path(__file__).parent / "results" / "mnist-cnn.json"
SIDES = ("none", "fp16", "bf16", "topk", "powersgd")


def hpc_train(folder: Path, *words: str) -> str:
    """What a command of the package prints; ends the benchmark if it fails."""
    command = [sys.executable, "-m", "hpc_train", *words]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{ended.stdout}\n{ended.stderr}")
    return ended.stdout


def accuracy(folder: Path, options: argparse.Namespace, side: str, seed: int) -> float:
    """Of the test data, after one training; patient with ranks that others keep from computing."""
    words = ["run", "mnist-cnn", "-n", str(options.ranks), f"comm.gradient_compression={side}"]
    words += [f"run.seed={seed}", f"run.epochs={options.epochs}", "run.evaluate=never"]
    words += ["checkpoint.every=never", "device.threads=1", "recovery.on_hang=wait", "--json"]
    result = json.loads(hpc_train(folder, *words))
    return float(result["metrics"]["test"]["accuracy"])


def report(options: argparse.Namespace, found: dict[str, list[float]]) -> None:
    """Record what is known so far: losses are those of pairs that began alike."""
    rounds = min(map(len, found.values()))
    lost = {
        side: [100 * (plain - one) for plain, one in zip(found["none"], mine, strict=False)]
        for side, mine in found.items()
        if side != "none" and mine
    }
    document: dict[str, Any] = {
        "benchmark": "gradient_compression",
        "ranks": options.ranks,
        "epochs": options.epochs,
        "seeds": rounds,
        "test_accuracy": found,
        "mean": {side: statistics.mean(values) for side, values in found.items() if values},
        "points_lost": lost,
        "mean_points_lost": {side: statistics.mean(values) for side, values in lost.items()},
        "environment": circumstances(),
    }
    write_results(options.out, document)


def main() -> None:
    """Train every side once for each seed, by turns; print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="t10k-images-idx3-ubyte.gz")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    images = options.images.resolve()
    found: dict[str, list[float]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        hpc_train(folder, "data", "import", str(images), "mnist")
        for seed in range(options.seeds):
            for side, values in found.items():
                values.append(accuracy(folder, options, side, seed))
                print(f"seed {seed}  {side:<9} {values[-1]:.4f}", flush=True)
                report(options, found)


if __name__ == "__main__":
    main()
