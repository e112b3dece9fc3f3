"""Sums over two nodes and a slow link: `hierarchical` beside MPI itself; see README.md.

The nodes are network namespaces on one machine, with host names of their own, joined by a pair of
virtual devices that are limited (Linux, root, Open MPI). Two ranks on each; plain sockets beside
them say what the link carries.

python benchmarks/hierarchical/main.py [--rounds N] [--gbit RATE] [--mib SIZE] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from hpc_train.bench.harness import (
    alternate,
    circumstances,
    paired_ratios,
    read_results,
    summary,
    write_results,
)
from hpc_train.comm import Comm, connect, prepare

HERE = Path(__file__).parent
LINK = "link0"
ADDRESSES = ["10.213.99.1", "10.213.99.2"]
PORT = 47001
FRAME, PAYLOAD = 1514, 1448  # bytes of a full frame that the link counts, and of data in it
MAPPINGS = {"block": "slot", "cyclic": "node"}
MPI = ["--mca", "pml", "ob1", "--mca", "btl", "self,sm,tcp", "--mca", "btl_tcp_if_include", LINK]
MPI += ["--mca", "mpi_yield_when_idle", "1"]  # four ranks share two cores
SIDES = ("sockets", "MPI", "native", "flat", "hierarchical")


def sockets(comm: Comm, size: int) -> Callable[[], None]:
    """The first ranks of both nodes send each other `size` floats at the same time."""
    lanes = comm.lanes()
    if comm.node.rank:
        return lambda: None
    out, into = bytes(4 * size), memoryview(bytearray(4 * size))
    if comm.world.node == 1:
        with socket.create_server((ADDRESSES[1], PORT)) as server:
            lanes.Barrier()
            line, _ = server.accept()
    else:
        lanes.Barrier()
        line = socket.create_connection((ADDRESSES[1], PORT))

    def run() -> None:
        sender = threading.Thread(target=line.sendall, args=(out,))
        sender.start()
        got = 0
        while got < len(into):
            got += line.recv_into(into[got:])
        sender.join()

    return run


def flat(comm: Comm, buffer: torch.Tensor) -> Callable[[], None]:
    """MPI_Allreduce by algorithms that do not know of nodes."""
    from mpi4py.MPI import IN_PLACE, Info

    wish = Info.Create()
    wish.Set("ompi_comm_coll_preference", "^han")
    line = comm.data.Dup_with_info(wish)
    return lambda: line.Allreduce(IN_PLACE, buffer.numpy())


def sides(comm: Comm, size: int) -> dict[str, tuple[torch.Tensor, Callable[[], None]]]:
    """Name -> (buffer, what sums it)."""
    found = {}
    for name in SIDES:
        arena = name == "hierarchical"
        buffer = comm.allocate(size, torch.float32) if arena else torch.zeros(size)
        if name == "MPI":
            (call,) = comm.sums([buffer.numpy()])
            found[name] = (buffer, lambda c=call: c[0](*c[1:]))  # type: ignore[misc]
        elif name in ("sockets", "flat"):
            made = sockets(comm, size) if name == "sockets" else flat(comm, buffer)
            found[name] = (buffer, made)
        else:
            found[name] = (buffer, prepare(name, comm, buffer).launch)
    return found


def sent_bytes() -> int:
    """What has left this node over the link, headers of all frames included."""
    words = ["tc", "-s", "-j", "qdisc", "show", "dev", LINK]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return int(json.loads(told)[0]["bytes"])


def measure(comm: Comm, size: int, rounds: int) -> dict[str, Any]:
    """Seconds of the slowest rank and bytes sent by a node, by turns; sums are checked."""
    found: dict[str, Any] = {}
    made = sides(comm, size)
    exact = float(sum(range(1, comm.world.size + 1)))
    for number, (name, (buffer, launch)) in alternate(list(made.items()), rounds + 2):
        buffer.fill_(comm.world.rank + 1.0)
        before = sent_bytes()
        comm.meet()
        started = time.perf_counter()
        launch()
        seconds = time.perf_counter() - started
        told = comm.gather(seconds)
        sent = max(int(one) for one in comm.gather(sent_bytes() - before))
        assert name == "sockets" or bool((buffer == exact).all()), name
        if number >= 2:
            kept = found.setdefault(name, {"seconds": [], "sent_bytes": []})
            kept["seconds"].append(max(float(one) for one in told))
            kept["sent_bytes"].append(sent)
    return found


def inside(options: argparse.Namespace) -> None:
    """On every rank."""
    comm = connect()
    size = int(options.mib * 2**20) // 4
    found = measure(comm, size, options.rounds)
    if comm.world.is_coordinator:
        nodes = list(comm.world.nodes)
        write_results(options.out, {"nodes": nodes, "environment": circumstances(), **found})


def enter(node: int, names: list[str]) -> list[str]:
    """What runs a command on a node."""
    return ["ip", "netns", "exec", names[node], "unshare", "-u", "sh", "-c"]


def job(
    options: argparse.Namespace, names: list[str], mapping: str, folder: Path
) -> dict[str, Any]:
    """Start ranks on both nodes; gives what they measured."""
    agent, out = folder / "agent", folder / f"{mapping}.json"
    # Open MPI starts its daemon on the other node by `agent HOST COMMAND...`
    other = shlex.join(["ip", "netns", "exec", names[1], "unshare", "-u", "sh", "-c"])
    agent.write_text(f'#!/bin/sh\nshift\nexec {other} "hostname {names[1]}; $*"\n')
    agent.chmod(0o755)
    words = ["--inside", "--rounds", str(options.rounds), "--mib", str(options.mib)]
    hosts = ",".join(f"{address}:2" for address in ADDRESSES)
    ranks = ["mpirun", "-n", "4", "--host", hosts, "--map-by", MAPPINGS[mapping], "--bind-to"]
    ranks += ["none", "--prtemca", "plm_ssh_agent", str(agent), "--prtemca", "prte_if_include"]
    ranks += [LINK, *MPI, "-x", "PYTHONPATH", "-x", "OMP_NUM_THREADS"]
    ranks += [sys.executable, "-m", "mpi4py", str(Path(__file__).resolve()), *words]
    ranks += ["--out", str(out)]
    allowed = ("OMPI_ALLOW_RUN_AS_ROOT", "PRTE_ALLOW_RUN_AS_ROOT")
    root = {name + tail: "1" for name in allowed for tail in ("", "_CONFIRM")}
    ended = subprocess.run(
        [*enter(0, names), f"hostname {names[0]}; exec {shlex.join(ranks)}"],
        env={**os.environ, **root, "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=200,
    )
    if ended.returncode:
        sys.exit(f"{mapping}: exit code {ended.returncode}")
    return read_results(out)


def connect_nodes(names: list[str], gbit: float) -> list[str]:
    """The commands that make two nodes with a limited link."""
    found = [f"ip netns add {name}" for name in names]
    found.append(f"ip link add {LINK} netns {names[0]} type veth peer name {LINK} netns {names[1]}")
    for name, address in zip(names, ADDRESSES, strict=True):
        on = f"ip -n {name}"
        found += [f"{on} addr add {address}/24 dev {LINK}", f"{on} link set {LINK} up"]
        limit = f"rate {gbit}gbit burst 256kb latency 100ms"
        found += [f"{on} link set lo up", f"tc -n {name} qdisc add dev {LINK} root tbf {limit}"]
    return found


def main() -> None:
    """Make the nodes, measure both mappings, print, record, remove the nodes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--gbit", type=float, default=1.0)
    parser.add_argument("--mib", type=float, default=16.0)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "hierarchical.json")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options)
        return
    names = [f"node{letter}{os.getpid()}" for letter in "ab"]
    try:
        for command in connect_nodes(names, options.gbit):
            subprocess.run(command.split(), check=True)
        with tempfile.TemporaryDirectory() as folder:
            found = {m: job(options, names, m, Path(folder)) for m in MAPPINGS}
        lost = [losses(name) for name in names]
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)
    report(options, found, lost)


def losses(name: str) -> dict[str, int]:
    """Frames that a node's end of the link dropped, and segments that TCP sent again."""
    words = ["tc", "-n", name, "-s", "-j", "qdisc", "show", "dev", LINK]
    told = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    words = ["ip", "netns", "exec", name, "cat", "/proc/net/snmp"]
    counted = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    names, values = (line.split() for line in counted.splitlines() if line.startswith("Tcp:"))
    again = dict(zip(names, values, strict=True))["RetransSegs"]
    return {"dropped": int(json.loads(told)[0]["drops"]), "sent_again": int(again)}


def report(
    options: argparse.Namespace, found: dict[str, dict[str, Any]], lost: list[dict[str, int]]
) -> None:
    """Print and record; each node sends as many bytes as the buffer has, at the least."""
    size = options.mib * 2**20
    least = size * FRAME / PAYLOAD
    bound = least * 8 / (options.gbit * 1e9)
    document: dict[str, Any] = {"benchmark": "hierarchical", "bound_seconds": bound}
    document |= {"least_bytes": least, "losses": lost}
    document |= {"gbit_per_second": options.gbit, "bytes": size, "mappings": found, "figures": {}}
    for mapping, one in found.items():
        mine = one["hierarchical"]["seconds"]
        best = [
            min(turn)
            for turn in zip(
                *(one[name]["seconds"] for name in ("MPI", "native", "flat")), strict=True
            )
        ]
        figures = {
            "share of the bound": summary([bound / seconds for seconds in mine]).to_json(),
            "times as fast as the best native": summary(paired_ratios(best, mine)).to_json(),
            "times as fast as flat": summary(paired_ratios(one["flat"]["seconds"], mine)).to_json(),
            "sent / least": summary(
                [sent / least for sent in one["hierarchical"]["sent_bytes"]]
            ).to_json(),
        }
        document["figures"][mapping] = figures
        for name in SIDES:
            print(f"{mapping:<7} {name:<13} {1e3 * summary(one[name]['seconds']).median:.0f} ms")
        for name, figure in figures.items():
            print(f"{mapping:<7} {name}: {figure['median']:.3f}")
    write_results(options.out, document)


if __name__ == "__main__":
    main()
