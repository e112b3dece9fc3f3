"""How much of a sum hides behind computing, over a link of limited rate; see README.md.

    overlap = (t_comm + t_comp - t_both) / min(t_comm, t_comp)

Starts itself in a network namespace of its own, whose loopback device is limited (Linux, root).

python benchmarks/overlap/main.py [--rounds N] [--gbit RATE] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from hpc_train.bench.harness import circumstances, summary, write_results
from hpc_train.comm import Background, Comm, Operation, connect, duplicate, prepare

HERE = Path(__file__).parent
BUCKETS = [2**20] * 16 + [64 * 2**10]  # bytes; the last one is small
COLLECTIVES = ["native", "ring"]
TCP = ["--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo", "--mca", "pml", "ob1"]
LAUNCH = ["mpirun", "-n", "2", "--bind-to", "none", "--mca", "mpi_yield_when_idle", "1", *TCP]


def together(thread: Background, operations: list[Operation], seconds: float) -> None:
    """A device computes for `seconds`; buckets become ready at even intervals."""
    started = time.perf_counter()
    for number, operation in enumerate(operations, 1):
        until = started + seconds * number / len(operations)
        time.sleep(max(0.0, until - time.perf_counter()))
        thread.put(operation)
    thread.wait()


def timed(comm: Comm, thread: Background, operations: list[Operation], seconds: float) -> float:
    """Seconds of the slowest rank, begun together."""
    comm.meet()
    started = time.perf_counter()
    together(thread, operations, seconds)
    return max(float(one) for one in comm.gather(time.perf_counter() - started))


def measure(comm: Comm, collective: str, rounds: int) -> dict[str, Any]:
    """Alone and behind computing, by turns."""
    line, thread = duplicate(comm), Background()
    buffers = [torch.zeros(size // 4) for size in BUCKETS]
    operations = [prepare(collective, line, buffer) for buffer in buffers]
    warm = [timed(comm, thread, operations, 0.0) for _ in range(4)]
    computing = min(warm[1:])
    alone, both, overlaps = [], [], []
    for _ in range(rounds):
        alone.append(timed(comm, thread, operations, 0.0))
        computing = alone[-1]
        both.append(timed(comm, thread, operations, computing))
        overlaps.append((alone[-1] + computing - both[-1]) / min(alone[-1], computing))
    assert thread.close()
    return {
        "collective": collective,
        "seconds": {"alone": alone, "both": both},
        "overlap": summary(overlaps).to_json(),
    }


def inside(rounds: int, gbit: float, out: Path) -> None:
    """On every rank, in the namespace."""
    comm = connect()
    found = [measure(comm, collective, rounds) for collective in COLLECTIVES]
    if not comm.world.is_coordinator:
        return
    document = {"benchmark": "overlap", "environment": circumstances(), "gbit_per_second": gbit}
    document |= {"buckets_bytes": BUCKETS, "rounds": rounds, "results": found}
    write_results(out, document)
    for one in found:
        alone, both = (summary(one["seconds"][kind]).median for kind in ("alone", "both"))
        overlap = one["overlap"]
        print(
            f"{one['collective']:<8} alone {1e3 * alone:.1f} ms  both {1e3 * both:.1f} ms  "
            f"overlap {overlap['median']:.3f} ({overlap['low']:.3f} .. {overlap['high']:.3f})"
        )


def main() -> None:
    """Make the namespace and start two ranks there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--gbit", type=float, default=4.0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "overlap.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.rounds, options.gbit, options.out)
        return
    words = ["--inside", "--rounds", str(options.rounds), "--gbit", str(options.gbit)]
    words += ["--out", str(options.out.resolve())]
    ranks = shlex.join([*LAUNCH, sys.executable, "-m", "mpi4py", __file__, *words])
    limit = f"tc qdisc add dev lo root tbf rate {options.gbit}gbit burst 512kb latency 100ms"
    script = f"ip link set lo up && {limit} && exec {ranks}"
    allowed = ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT")
    root = {name + tail: "1" for name in allowed for tail in ("", "_CONFIRM")}
    ended = subprocess.run(
        ["unshare", "-n", "sh", "-c", script],
        env={**os.environ, **root, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    if ended.returncode:
        sys.exit(json.dumps({"script": script, "code": ended.returncode}))


if __name__ == "__main__":
    main()
