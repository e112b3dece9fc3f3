"""What updates by slices of shared parameters gain; see README.md.

python benchmarks/update/main.py [update|step|memory ...] [--rounds N] [--out FILE]
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from hpc_train.bench.harness import (
    busy_machine,
    circumstances,
    paired_ratios,
    read_results,
    summary,
    write_results,
)
from hpc_train.launch import start_ranks

HERE = Path(__file__).parent
MIB = 2**20
PARTS = ("update", "step", "memory")
STEP_REPEATS = {"mlp": 8, "cnn": 20, "transformer": 5}


def measure(ranks: int, **told: object) -> dict:
    """What a job on so many ranks measured."""
    with tempfile.TemporaryDirectory() as folder:
        out, file = Path(folder) / "measured.json", Path(folder) / "job.json"
        file.write_text(json.dumps({"keep_memory": True, **told, "out": str(out)}))
        program = [sys.executable, str(HERE / "worker.py"), str(file)]
        code = start_ranks(program, ranks, {**os.environ, "OMP_NUM_THREADS": "1"})
        if code or not out.exists():
            sys.exit(f"a job failed (exit code: {code}, {told})")
        found: dict = json.loads(out.read_text())
        return found


def update(rounds: int, sizes: list[int]) -> list[dict]:
    """Reduce and optimizer, for each size and optimizer."""
    rows = []
    for mib in sizes:
        for optimizer in ("sgd", "adamw"):
            for tuned in (False, True) if mib > 16 else (False,):
                seconds = measure(
                    2,
                    what="update",
                    bytes=mib * MIB,
                    optimizer=optimizer,
                    rounds=rounds,
                    repeats=3 if mib <= 64 else 1,
                    keep_memory=tuned,
                )
                theirs = seconds["MPI + torch"]
                row = {"mib": mib, "optimizer": optimizer, "tuned": tuned, "seconds": seconds}
                for side in ("protected", "unprotected"):
                    row[side] = summary(paired_ratios(theirs, seconds[side])).to_json()
                rows.append(row)
                milliseconds = (f"{n} {1e3 * summary(s).median:.2f} ms" for n, s in seconds.items())
                print(
                    f"{mib:>4} MiB {optimizer:<6}{' kept memory' if tuned else '':<12} "
                    f"{'  '.join(milliseconds)}  protected {row['protected']['median']:.2f}x "
                    f"({row['protected']['low']:.2f}-{row['protected']['high']:.2f})  "
                    f"unprotected {row['unprotected']['median']:.2f}x",
                    flush=True,
                )
    return rows


def step(rounds: int, sizes: list[int]) -> list[dict]:
    """Whole steps of three models."""
    rows = []
    for model, repeats in STEP_REPEATS.items():
        for sharding in (True, False):
            found = measure(
                2, what="step", model=model, sharding=sharding, rounds=rounds, repeats=repeats
            )
            ours = found["hpc_train"]
            row = {"model": model, "sharding": sharding, **found}
            row["vs DDP"] = summary(paired_ratios(found["DDP"], ours)).to_json()
            row["of limit"] = summary(paired_ratios(found["no communication"], ours)).to_json()
            rows.append(row)
            print(
                f"{model:<12} {found['parameters']:,} parameters "
                f"{'slices' if sharding else 'whole '}  ours {1e3 * summary(ours).median:.2f} ms  "
                f"vs DDP {row['vs DDP']['median']:.2f}x ({row['vs DDP']['low']:.2f}-"
                f"{row['vs DDP']['high']:.2f})  of no communication "
                f"{row['of limit']['median']:.3f}  difference {found['difference']:.1e}",
                flush=True,
            )
    return rows


def memory(rounds: int, sizes: list[int]) -> list[dict]:
    """What parameters and state of AdamW take on the node."""
    rows = []
    for ranks, sharding in ((1, False), (4, True), (4, False)):
        size = measure(ranks, what="memory", bytes=64 * MIB, sharding=sharding, keep_memory=False)[
            "bytes"
        ]
        rows.append({"ranks": ranks, "sharding": sharding, "bytes": size})
        ratio = size / rows[0]["bytes"]
        print(f"{ranks} ranks sharing {sharding}: {size / MIB:.1f} MiB ({ratio:.3f}x)", flush=True)
    return rows


def main() -> None:
    """Measure, print and record; parts that are not measured keep what is recorded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=PARTS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", type=int, nargs="+", default=[16, 64, 256], help="MiB")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "update.json")
    arguments = parser.parse_args()
    around = circumstances()
    warning = busy_machine(around["load_average"], around["cores"])
    if warning:
        print(warning)
    document = read_results(arguments.out) if arguments.out.exists() else {"benchmark": "update"}
    for part in arguments.parts:
        rows = {"update": update, "step": step, "memory": memory}[part](
            arguments.rounds, arguments.sizes
        )
        document[part] = {"environment": around, "rows": rows}
        write_results(arguments.out, document)


if __name__ == "__main__":
    main()
