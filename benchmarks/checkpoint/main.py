"""What checkpoints cost: `python benchmarks/checkpoint/main.py [PART ...]`; see README.md."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hpc_train.bench.harness import (
    circumstances,
    paired_ratios,
    read_results,
    summary,
    write_results,
)
from hpc_train.launch import launching

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUNDS = {"blocking": 9, "slowdown": 9, "load": 9}
RANKS = {"blocking": 1, "slowdown": 2, "load": 2}
KILLS = 300


def measure(what: str, folder: Path) -> dict:
    """The seconds that the ranks found."""
    program = [sys.executable, str(HERE / "sides.py"), what, str(folder), str(ROUNDS[what])]
    with launching(program, RANKS[what]) as call:
        # one thread each, as a rank on each core would have
        return answer(call.argv, {**call.environ, "OMP_NUM_THREADS": "1"})


def kills(folder: Path) -> dict:
    """What was wrong after kills and damages."""
    return answer([sys.executable, "-m", "tests.checkpoint.kills", str(folder), str(KILLS)], {})


def answer(argv: list[str], extra: dict[str, str]) -> dict:
    """The last line that a program prints, as JSON."""
    ended = subprocess.run(
        argv, env={**os.environ, **extra}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        sys.exit(ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])


def ratios(seconds: dict, numerator: str, others: list[str]) -> dict:
    """How many times as long the others took, round by round."""
    return {
        other: summary(paired_ratios(seconds[other], seconds[numerator])).to_json()
        for other in others
    }


def show(title: str, seconds: dict, found: dict) -> None:
    """A table of medians, and ratios to the first row."""
    print(f"\n{title}")
    for name, values in seconds.items():
        ratio = f"{found[name]['median']:8.2f} x" if name in found else ""
        print(f"  {name:<34} {summary(values).median * 1000:9.1f} ms {ratio}")


def timed(what: str, folder: Path) -> dict:
    """One of the parts that are measured in seconds."""
    seconds = measure(what, folder)
    found: dict = {"environment": circumstances()}
    if what == "blocking":
        found["until written"] = seconds["until written"]
        seconds = seconds["blocked"]
    first, *others = seconds if what != "slowdown" else ["not saving", "saving"]
    found |= {"seconds": seconds, "ratios": ratios(seconds, first, others)}
    show(what, seconds, found["ratios"])
    return found


def main() -> None:
    """Measure, print and record; parts that are not asked for stay as they are on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", default=[*ROUNDS, "reliability"])
    parser.add_argument("--folder", type=Path, help="where the files go")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    asked = parser.parse_args()
    path = asked.out / "checkpoint.json"
    document = read_results(path) if path.exists() else {}
    for part in asked.part:
        with tempfile.TemporaryDirectory(dir=asked.folder) as place:
            if part == "reliability":
                document[part] = {"environment": circumstances(), **kills(Path(place))}
                print(f"\nreliability\n  {document[part]}")
            else:
                document[part] = timed(part, Path(place))
        write_results(path, {**document, "benchmark": "checkpoint"})


if __name__ == "__main__":
    main()
