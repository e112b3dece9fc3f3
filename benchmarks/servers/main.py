"""What several parameter servers bring where the card of one is the limit; see README.md.

python benchmarks/servers/main.py [--rounds N] [--gbit RATE] [--steps N] [--out FILE] [ROW ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from network import LINK, address, agent, enter, machines

from hpc_train.bench.harness import (
    alternate,
    circumstances,
    paired_ratios,
    summary,
    write_results,
)

HERE = Path(__file__).parent
SKIPPED = 3  # steps at the beginning
WIDTH = 1024  # of both hidden layers
WEIGHTS = 64 * WIDTH + WIDTH * WIDTH + 10 * WIDTH + 2 * WIDTH + 10
MPI = ["--mca", "pml", "ob1", "--mca", "btl", "self,sm,tcp"]


@dataclass(frozen=True)
class Side:
    """A job: `ranks` of which `servers` hold a slice each, and whether these work, too."""

    ranks: int
    servers: int
    trains: bool

    @property
    def sizes(self) -> float:
        """How often the bytes of the model go through the busiest card in a step, each way."""
        if not self.trains:
            return (self.ranks - self.servers) / self.servers
        return (self.ranks + self.servers - 2) / self.servers

    def settings(self, steps: int) -> list[str]:
        """Of `hpc-train run`."""
        return [
            "digits-mlp",
            f"model.hidden=[{WIDTH},{WIDTH}]",
            "strategy.name=parameter_server",
            f"strategy.servers={self.servers}",
            f"strategy.server_trains={str(self.trains).lower()}",
            f"run.steps={steps}",
            "run.evaluate=never",
            "checkpoint.every=never",
            "device.threads=1",
        ]


# row -> (slow links?, one server, two servers)
ROWS = {
    "link, 4 workers, servers apart": (True, Side(5, 1, trains=False), Side(6, 2, trains=False)),
    "link, 4 ranks, servers work": (True, Side(4, 1, trains=True), Side(4, 2, trains=True)),
    "one node, 4 ranks, servers work": (False, Side(4, 1, trains=True), Side(4, 2, trains=True)),
}


def train(folder: Path, side: Side, steps: int, names: list[str]) -> float:
    """The median seconds of a step; on machines of these names, or here if there are none."""
    run_dir = folder / uuid.uuid4().hex[:8]
    ranks = [sys.executable, "-m", "hpc_train", "run", *side.settings(steps), f"run.dir={run_dir}"]
    words = ["mpirun", "-n", str(side.ranks), "--bind-to", "none", "--oversubscribe"]
    call = [*words, *MPI, *ranks]
    if names:
        script = folder / "agent"
        script.write_text(agent(names))
        script.chmod(0o755)
        hosts = ",".join(f"{address(place)}:1" for place in range(side.ranks))
        words += ["--host", hosts, "--map-by", "slot", "--prtemca", "plm_ssh_agent", str(script)]
        words += ["--prtemca", "prte_if_include", LINK, "--mca", "btl_tcp_if_include", LINK]
        call = enter(names[0], [*words, "-x", "PYTHONPATH", "-x", "OMP_NUM_THREADS", *MPI, *ranks])
    allowed = ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT")
    root = {name + tail: "1" for name in allowed for tail in ("", "_CONFIRM")}
    environ = {**os.environ, **root, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        call, env=environ, check=False, timeout=150, capture_output=True, text=True
    )
    if ended.returncode:
        sys.exit(f"{side}: exit code {ended.returncode}\n{ended.stdout}\n{ended.stderr}")
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    told = [record for record in map(json.loads, lines) if record["kind"] == "step"]
    return statistics.median(64 / record["samples_per_second"] for record in told[SKIPPED:])


def figures(row: str, seconds: list[list[float]], gbit: float) -> dict[str, Any]:
    """What came out of a row, and what its links allow: all gradients in, then all weights out."""
    slow, *sides = ROWS[row]
    found: dict[str, Any] = {
        "seconds of a step, by number of servers": seconds,
        "two servers over one": summary(paired_ratios(*seconds)).to_json(),
    }
    if slow:
        bounds = [2 * side.sizes * 4 * WEIGHTS * 8 / (gbit * 1e9) for side in sides]
        found["seconds that the links take"] = bounds
        found["bound of two servers over one"] = bounds[0] / bounds[1]
        found["share of the bound"] = [
            summary([bound / one for one in own]).to_json()
            for bound, own in zip(bounds, seconds, strict=True)
        ]
    return found


def main() -> None:
    """Make the machines, measure by turns, print, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--gbit", type=float, default=0.4)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "servers.json")
    options = parser.parse_args()
    rows = options.rows or list(ROWS)
    seconds: dict[str, list[list[float]]] = {row: [[], []] for row in rows}
    turns = [(row, number) for row in rows for number in (0, 1)]
    with tempfile.TemporaryDirectory() as folder, machines(6, options.gbit) as names:
        for _, (row, number) in alternate(turns, options.rounds):
            slow, *sides = ROWS[row]
            found = train(Path(folder), sides[number], options.steps, names if slow else [])
            seconds[row][number].append(found)
            print(f"{row:<32} {sides[number].servers} servers {found:.3f} s", flush=True)
    document: dict[str, Any] = {"benchmark": "servers", "gbit_per_second": options.gbit}
    document |= {"bytes": 4 * WEIGHTS, "rounds": options.rounds, "environment": circumstances()}
    document["rows"] = {row: figures(row, own, options.gbit) for row, own in seconds.items()}
    for row, own in document["rows"].items():
        bound = own.get("bound of two servers over one")
        text = f" (links: {bound:.2f}x)" if bound else ""
        print(f"{row}: {own['two servers over one']['median']:.2f}x{text}")
    write_results(options.out, document)


if __name__ == "__main__":
    main()
