"""What a step costs with all techniques off, beside an earlier commit; see README.md.

python benchmarks/step/main.py [--against COMMIT] [--rounds N] [--out FILE]
"""

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from hpc_train.bench.harness import circumstances, paired_ratios, summary, write_results
from hpc_train.bench.turns import take_turns

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BEFORE = "743cf72"  # the last commit before techniques hooked into the loop
STEPS, WARM_UP = 1500, 200
# name -> recipe, ranks, samples of a global batch; tiny networks, so that the loop itself counts
WORKLOADS = {
    "mlp, 1 rank": ("digits-mlp", 1, 16),
    "mlp, 2 ranks": ("digits-mlp", 2, 16),
    "cnn, 1 rank": ("digits-cnn", 1, 64),
}
PLAIN = [f"run.steps={STEPS}", "run.evaluate=never", "checkpoint.every=never", "device.threads=1"]


def unpack(commit: str, folder: Path) -> Path:
    """The package as it was at a commit, in `folder`."""
    packed = subprocess.run(
        ["git", "archive", commit, "hpc_train"], cwd=ROOT, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


class Side:
    """A run of the package in `tree`, in `place`."""

    def __init__(self, tree: Path, workload: str, place: Path) -> None:
        self._tree, self._place = tree, place
        self._recipe, self._ranks, self._size = WORKLOADS[workload]
        self._metrics = place / "run" / "metrics.jsonl"

    def start(self) -> subprocess.Popen[bytes]:
        """Start it."""
        program = [sys.executable, "-m", "hpc_train", "run", self._recipe, *PLAIN, "run.dir=run"]
        with (self._place / "log").open("wb") as log:
            return subprocess.Popen(
                [*program, f"data.batch_size={self._size}", "-n", str(self._ranks)],
                env={**os.environ, "PYTHONPATH": str(self._tree), "OMP_NUM_THREADS": "1"},
                cwd=self._place,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def trains(self) -> bool:
        """Whether it has begun to train."""
        return self._metrics.exists()

    def seconds(self) -> float:
        """The median seconds of a step, once it has ended."""
        records = [json.loads(line) for line in self._metrics.read_text().splitlines()]
        seconds = [self._size / r["samples_per_second"] for r in records if r["kind"] == "step"]
        if len(seconds) < STEPS:
            sys.exit((self._place / "log").read_text())
        return statistics.median(seconds[WARM_UP:])


def measure(trees: dict[str, Path], workload: str) -> dict[str, float]:
    """The median seconds of a step of each side, which take turns."""
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in trees}
        for place in places.values():
            place.mkdir()
        sides = [Side(tree, workload, places[name]) for name, tree in trees.items()]
        take_turns([side.start for side in sides], [side.trains for side in sides])
        return {name: side.seconds() for name, side in zip(trees, sides, strict=True)}


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", default=BEFORE)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--workload", choices=WORKLOADS, action="append")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "step.json")
    arguments = parser.parse_args()
    document: dict = {"benchmark": "step", "against": arguments.against, "workloads": {}}
    document["environment"] = circumstances()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"before": unpack(arguments.against, Path(folder)), "now": ROOT}
        for workload in arguments.workload or WORKLOADS:
            seconds: dict[str, list[float]] = {side: [] for side in trees}
            for number in range(arguments.rounds):
                order = list(trees.items())[:: 1 if number % 2 else -1]
                for side, found in measure(dict(order), workload).items():
                    seconds[side].append(found)
            ratio = summary(paired_ratios(seconds["now"], seconds["before"]))
            document["workloads"][workload] = {"seconds": seconds, "ratio": ratio.to_json()}
            before, now = (summary(values).median * 1e3 for values in seconds.values())
            print(
                f"{workload:<14} before {before:.3f} ms  now {now:.3f} ms  "
                f"now / before {ratio.median:.3f} ({ratio.low:.3f} .. {ratio.high:.3f})",
                flush=True,
            )
            write_results(arguments.out, document)


if __name__ == "__main__":
    main()
