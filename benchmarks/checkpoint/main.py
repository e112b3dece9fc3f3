"""What checkpoints cost: `python benchmarks/checkpoint/main.py [FOLDER]`; see README.md."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from hpc_train.bench.harness import circumstances, paired_ratios, summary, write_results
from hpc_train.launch import command, find
from hpc_train.launch.machine import this_machine

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ROUNDS = {"blocking": 9, "slowdown": 9, "load": 9}
RANKS = {"blocking": 1, "slowdown": 2, "load": 2}
KILLS = 300


def measure(what: str, folder: Path) -> dict:
    """The seconds that the ranks found."""
    program = [sys.executable, str(HERE / "sides.py"), what, str(folder), str(ROUNDS[what])]
    argv, extra = command(
        find(os.environ), program, ranks=RANKS[what], machine=this_machine(os.environ)
    )
    # one thread each, as a rank on each core would have
    return answer(argv, {**extra, "OMP_NUM_THREADS": "1"})


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


def main(folder: Path) -> None:
    """Measure, print and record."""
    document: dict = {"benchmark": "checkpoint", "environment": circumstances()}
    for what in ROUNDS:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            seconds = measure(what, Path(place))
        if what == "blocking":
            document["until written"] = seconds["until written"]
            seconds = seconds["blocked"]
        first, *others = seconds if what != "slowdown" else ["not saving", "saving"]
        found = ratios(seconds, first, others)
        document[what] = {"seconds": seconds, "ratios": found}
        show(what, seconds, found)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        document["reliability"] = kills(Path(place))
    print(f"\nreliability\n  {document['reliability']}")
    write_results(HERE / "results" / "checkpoint.json", document)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir()))
