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

from hpc_train.bench.harness import (
    alternate,
    circumstances,
    paired_ratios,
    summary,
    write_results,
)

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BEFORE = "743cf72"  # the last commit before techniques hooked into the loop
STEPS, WARM_UP = 600, 100
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


def step_seconds(tree: Path, workload: str, place: Path) -> float:
    """The median seconds of a step of a fresh run of the package in `tree`."""
    recipe, ranks, size = WORKLOADS[workload]
    run = place / "run"
    program = [sys.executable, "-m", "hpc_train", "run", recipe, *PLAIN]
    ended = subprocess.run(
        [*program, f"data.batch_size={size}", f"run.dir={run}", "-n", str(ranks)],
        env={**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(ended.stdout + ended.stderr)
    records = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    seconds = [size / r["samples_per_second"] for r in records if r["kind"] == "step"]
    return statistics.median(seconds[WARM_UP:])


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--against", default=BEFORE)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "step.json")
    arguments = parser.parse_args()
    document: dict = {"benchmark": "step", "against": arguments.against, "workloads": {}}
    document["environment"] = circumstances()
    with tempfile.TemporaryDirectory() as folder:
        trees = {"before": unpack(arguments.against, Path(folder)), "now": ROOT}
        for workload in WORKLOADS:
            seconds: dict[str, list[float]] = {side: [] for side in trees}
            for _, side in alternate(list(trees), arguments.rounds):
                with tempfile.TemporaryDirectory() as place:
                    seconds[side].append(step_seconds(trees[side], workload, Path(place)))
            found = summary(paired_ratios(seconds["now"], seconds["before"]))
            document["workloads"][workload] = {"seconds": seconds, "ratio": found.to_json()}
            before, now = (summary(values).median * 1e3 for values in seconds.values())
            print(
                f"{workload:<14} before {before:.3f} ms  now {now:.3f} ms  "
                f"now / before {found.median:.3f} ({found.low:.3f} .. {found.high:.3f})",
                flush=True,
            )
    write_results(arguments.out, document)


if __name__ == "__main__":
    main()
