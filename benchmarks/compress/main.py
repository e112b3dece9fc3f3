"""What pruning and quantisation cost and gain on `mnist-cnn`: accuracy, size, operations, latency.

Each side is trained once for each seed; a run that is there already is not trained again. Then
`hpc-train compress` measures it. Accuracies do not depend on how busy a machine is; latencies do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from hpc_train.observe import environment

TRAINED = {
    "dense": [],
    "magnitude 80 %": ["compress.prune=magnitude", "compress.amount=0.8"],
    "saliency 80 %": ["compress.prune=saliency", "compress.amount=0.8"],
    "sensitivity 80 %": ["compress.prune=sensitivity", "compress.amount=0.8"],
    "2:4": ["compress.prune=pattern"],
    "channels, half the operations": ["compress.prune=channels", "compress.amount=0.5"],
    "int8 in training": ["compress.quantize=int8"],
}
# side -> (what is trained, how it is compressed)
SIDES = {
    "magnitude 80 %": ("magnitude 80 %", []),
    "saliency 80 %": ("saliency 80 %", []),
    "sensitivity 80 %": ("sensitivity 80 %", []),
    "2:4": ("2:4", []),
    "channels, half the operations": ("channels, half the operations", []),
    "int8 static, after training": ("dense", ["--quantize", "static"]),
    "int8 dynamic, after training": ("dense", ["--quantize", "dynamic"]),
    "int8 in training": ("int8 in training", []),
    "channels and int8 static": ("channels, half the operations", ["--quantize", "static"]),
}


def hpc_train(*words: str, cwd: Path) -> None:
    """Run a command of the package, quietly; ends the benchmark if it fails."""
    command = [sys.executable, "-m", "hpc_train", *words]
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{ended.stdout}\n{ended.stderr}")


def folder_of(name: str, seed: int) -> str:
    """The run directory of a side."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return f"{plain}-{seed}"


def train(folder: Path, name: str, seed: int, epochs: int) -> None:
    """Train a side, unless it is there."""
    run = folder_of(name, seed)
    if not (folder / run / "result.json").exists():
        words = [f"run.dir={run}", f"run.seed={seed}", f"run.epochs={epochs}", *TRAINED[name]]
        hpc_train("run", "mnist-cnn", *words, "-n", "1", cwd=folder)
    print(f"{name}, seed {seed}: trained", file=sys.stderr, flush=True)


def measure(folder: Path, side: str, seed: int, seconds: float) -> dict:
    """What compressing a side gains, and the accuracy of the dense network of its seed."""
    name, options = SIDES[side]
    out = folder / f"out-{folder_of(side, seed)}"
    words = [folder_of(name, seed), "--out", str(out), "--seconds", str(seconds), *options]
    hpc_train("compress", *words, cwd=folder)
    report = json.loads((out / "report.json").read_text())
    if not seconds:  # of a few passes on a busy machine nothing can be said
        for network in (report["before"], report["after"]):
            network["latency_ms"] = {}
    dense = json.loads((folder / folder_of("dense", seed) / "result.json").read_text())
    return {
        "side": side,
        "seed": seed,
        "dense_accuracy": dense["metrics"]["test"]["accuracy"],
        **report,
    }


def row(found: dict) -> str:
    """A line of the table."""
    before, after = found["before"], found["after"]
    lost = 100 * (found["dense_accuracy"] - found["metrics_after"]["accuracy"])
    cells = [
        found["side"],
        str(found["seed"]),
        f"{found['metrics_after']['accuracy']:.4f}",
        f"{lost:+.2f}",
        f"{after['nonzero'] / before['parameters']:.3f}",
        f"{after['flops'] / before['flops']:.3f}",
        f"{after['size_bytes'] / before['size_bytes']:.3f}",
        *(
            f"{time / after['latency_ms'][size]:.2f}x"
            for size, time in before["latency_ms"].items()
        ),
    ]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Train what is missing, measure, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, help="t10k-images-idx3-ubyte.gz")
    parser.add_argument("--folder", type=Path, default=Path("compress-runs"), help="of the runs")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each latency; 0: none")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--json", type=Path, help="where the results go")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "mnist").exists():
        hpc_train("data", "import", str(options.images.resolve()), "mnist", cwd=folder)
    found = []
    for seed in range(options.seeds):
        for name in dict.fromkeys(["dense", *(SIDES[side][0] for side in options.sides)]):
            train(folder, name, seed, options.epochs)
        for side in options.sides:
            found.append(measure(folder, side, seed, options.seconds))
            print(row(found[-1]), flush=True)
    if options.json:
        facts = {key: value for key, value in environment().items() if key != "command"}
        document = {"environment": facts, "epochs": options.epochs, "results": found}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
