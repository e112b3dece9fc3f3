"""Machines that are network namespaces, each with a limited link to one switch (Linux, root)."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

LINK = "link0"
NET = "10.213.98"


def commands(names: list[str], switch: str, gbit: float) -> list[str]:
    """What makes the machines: `gbit` each way between each of them and the switch.

    Queues hold 200 ms of traffic, so that nothing is dropped while one connection is in use.
    """
    limit = f"root tbf rate {gbit}gbit burst 256kb latency 200ms"
    found = [f"ip netns add {name}" for name in [switch, *names]]
    found += [f"ip -n {switch} link add bridge0 type bridge"]
    found += [f"ip -n {switch} link set bridge0 up"]
    for place, name in enumerate(names):
        port, on = f"port{place}", f"ip -n {name}"
        found += [f"ip link add {LINK} netns {name} type veth peer name {port} netns {switch}"]
        found += [f"ip -n {switch} link set {port} master bridge0 up"]
        found += [f"{on} addr add {address(place)}/24 dev {LINK}", f"{on} link set {LINK} up"]
        found += [f"{on} link set lo up", f"tc -n {name} qdisc add dev {LINK} {limit}"]
        found += [f"tc -n {switch} qdisc add dev {port} {limit}"]
    return found


def address(place: int) -> str:
    """The address of a machine."""
    return f"{NET}.{place + 1}"


@contextmanager
def machines(count: int, gbit: float) -> Iterator[list[str]]:
    """The names of `count` machines, which are there inside the block."""
    names = [f"machine{place}of{os.getpid()}" for place in range(count)]
    switch = f"switch{os.getpid()}"
    try:
        for command in commands(names, switch, gbit):
            subprocess.run(command.split(), check=True)
        yield names
    finally:
        for name in [*names, switch]:
            subprocess.run(["ip", "netns", "del", name], check=False)


def enter(name: str, words: list[str]) -> list[str]:
    """The command that runs another one on a machine."""
    line = f"hostname {name}; exec {shlex.join(words)}"
    return ["ip", "netns", "exec", name, "unshare", "-u", "sh", "-c", line]


def agent(names: list[str]) -> str:
    """A script by which Open MPI starts its daemon on another machine: `agent ADDRESS COMMAND...`.

    Lines: which machine has the address, then the command on it.
    """
    cases = "\n".join(f"{address(place)}) name={name};;" for place, name in enumerate(names))
    return (
        f'#!/bin/sh\ncase "$1" in\n{cases}\nesac\nshift\n'
        'exec ip netns exec "$name" unshare -u sh -c "hostname $name; $*"\n'
    )
