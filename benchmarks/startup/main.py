"""How fast the command line answers: `hpc-train --help` beside an empty Python, taking turns."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from hpc_train.bench.harness import alternate, circumstances, summary, write_results

ROUNDS = 15
SIDES = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "hpc-train --help": [sys.executable, "-m", "hpc_train", "--help"],
    "hpc-train recipes": [sys.executable, "-m", "hpc_train", "recipes"],
    "import torch": [sys.executable, "-c", "import torch"],
}


def main() -> None:
    """Measure, print and record."""
    seconds = {name: [] for name in SIDES}
    for _, name in alternate(list(SIDES), ROUNDS):
        begun = time.perf_counter()
        subprocess.run(SIDES[name], check=True, stdout=subprocess.DEVNULL)
        seconds[name].append(time.perf_counter() - begun)
    for name, values in seconds.items():
        print(f"{name:<20} {statistics.median(values) * 1000:8.0f} ms")
    write_results(
        Path(__file__).parent / "results" / "startup.json",
        {
            "benchmark": "startup",
            "seconds": {name: summary(values).to_json() for name, values in seconds.items()},
            "environment": circumstances(),
        },
    )


if __name__ == "__main__":
    main()
