"""A real Slurm on this one machine: a controller, and nodes that are namespaces.

    munged      says who asks
    slurmctld   gives nodes to jobs                              (in a UTS and a mount namespace)
    node1..N    slurmd, and all that runs on the node            (UTS, IPC, mount, PID namespaces:
                                                                  a host name, /dev/shm and /proc
                                                                  of its own)

All daemons stay in the foreground, keep their files in one folder, and are killed by the kernel
when the thread that started them ends, however it does. To power a node off is to kill the first
process of its namespace, with which the kernel kills all others in it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "unshare", "setpriv")
START_SECONDS = 45.0
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
# what the first process of a node does: bash, because it reaps orphans and slurmd does not
_NODE = """\
hostname "$1"
mount --bind "$2" /etc/hosts
mount -t tmpfs -o mode=1777,size=1g tmpfs /dev/shm
slurmd -D -N "$1" &
while kill -0 $! 2>/dev/null; do wait $!; done
"""
# nodes share /tmp and have equal process ids: files that MPI names after those would be mixed up
_PROLOG = """\
#!/bin/bash
echo "export TMPDIR={folder}/$SLURMD_NODENAME/tmp"
"""
_CONTROLLER = 'hostname controller; mount --bind "$1" /etc/hosts; exec slurmctld -D'
# cred_expire: so long a job that was queued again waits for the nodes of its last start
# config_overrides: nodes may claim more cores than there are
_CONF = """\
ClusterName=stories
SlurmctldHost=controller(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n/slurmd.pid
SlurmdSpoolDir={folder}/%n
StateSaveLocation={folder}/state
TmpFS={folder}/%n/tmp
TaskProlog={folder}/prolog
PlugStackConfig={folder}/plugstack.conf
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmctldTimeout=30
SlurmdTimeout={patience}
MessageTimeout=6
InactiveLimit=0
KillWait=5
WaitTime=0
MinJobAge=86400
JobRequeue=1
PropagateResourceLimits=NONE
"""


class NoClusterError(Exception):
    """Why there can be no cluster on this machine."""


class Cluster:
    """A running cluster; a context manager that leaves nothing behind.

    Args:
        nodes: how many, >= 1: node1, node2, ...
        cpus: cores that each of them claims, >= 1.
        patience: seconds after which a node that does not answer counts as down.

    Attributes:
        folder: of configuration, state and logs.
        environ: the environment in which Slurm's commands speak to this cluster.

    Raises:
        NoClusterError: on entering, if this machine cannot have one.
    """

    def __init__(self, nodes: int = 3, cpus: int = 2, patience: int = 60) -> None:
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        self._cpus = cpus
        self._patience = patience
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        path = os.pathsep.join([os.environ.get("PATH", ""), *_SBIN])
        self.environ = {**os.environ, "PATH": path}

    def __enter__(self) -> Cluster:
        self._check()
        # short: the path of a socket has at most 107 bytes
        self.folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
        self.environ["SLURM_CONF"] = str(self.folder / "slurm.conf")
        try:
            self._configure()
            self._start("munged", [*self._munged()])
            self._until("munged answers", (self.folder / "munge.socket").exists)
            unshare = ["unshare", "--uts", "--mount", "bash", "-c", _CONTROLLER, "bash"]
            self._start("slurmctld", [*unshare, str(self.folder / "hosts")])
            for node in self.nodes:
                self._power_on(node)
            self._until("all nodes are idle", lambda: self.idle() == len(self.nodes))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def power_off(self, node: str) -> None:
        """Kill all that runs on a node, as a loss of power does; without a word to anybody."""
        self._kill(node)
        address = ("127.0.0.1", self._port(node))

        def gone() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(address) != 0

        self._until(f"{node} is gone", gone)

    def update(self, node: str, state: str) -> None:
        """What an administrator does: `scontrol update` with DOWN or DRAIN."""
        self.call("scontrol", "update", f"nodename={node}", f"state={state}", "reason=story")

    def idle(self) -> int:
        """How many nodes are idle; 0 while the controller does not answer."""
        try:
            answer = self.call("sinfo", "-h", "-t", "idle", "-o", "%D", seconds=5).strip()
        except (OSError, subprocess.SubprocessError):
            return 0
        return int(answer) if answer.isdigit() else 0

    def call(self, *argv: str, seconds: float = 30.0) -> str:
        """What a command of Slurm prints; fails with what it says."""
        ended = subprocess.run(
            argv,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if ended.returncode:
            raise subprocess.SubprocessError(f"{argv}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def logs(self) -> str:
        """The last lines of all daemons, for those who have to find out what happened."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-25:]
            parts.append("\n".join([f"--- {path.name}", *lines]))
        return "\n".join(parts)

    def close(self) -> None:
        """End everything, and remove the folder."""
        for name in list(self._running):
            self._kill(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise NoClusterError("virtual nodes need root")
        for name in COMMANDS:
            if shutil.which(name, path=self.environ["PATH"]) is None:
                raise NoClusterError(f"{name} is not here (tests/slurm/install brings Slurm)")

    def _configure(self) -> None:
        folder = self.folder
        folder.chmod(0o755)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.touch(0o400)
        key.write_bytes(os.urandom(128))
        self._first_port = _free_ports(len(self.nodes) + 1)
        names = ["localhost", "controller", *self.nodes]
        (folder / "hosts").write_text("".join(f"127.0.0.1 {name}\n" for name in names))
        (folder / "plugstack.conf").touch()
        (folder / "prolog").write_text(_PROLOG.format(folder=folder))
        (folder / "prolog").chmod(0o755)
        lines = [
            f"NodeName={node} NodeAddr=127.0.0.1 Port={self._port(node)} CPUs={self._cpus} "
            f"Sockets=1 CoresPerSocket={self._cpus} ThreadsPerCore=1 RealMemory=4000"
            for node in self.nodes
        ]
        lines.append("PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
        text = _CONF.format(folder=folder, port=self._first_port, patience=self._patience)
        (folder / "slurm.conf").write_text(text + "\n".join(lines) + "\n")

    def _power_on(self, node: str) -> None:
        (self.folder / node / "tmp").mkdir(parents=True)
        spaces = ["--uts", "--ipc", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv = ["unshare", *spaces, "bash", "-c", _NODE, "bash", node, str(self.folder / "hosts")]
        self._start(node, argv)

    def _munged(self) -> list[str]:
        options = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "munged.pid",
            "seed-file": "munged.seed",
            "log-file": "munged.log",
        }
        paths = [f"--{name}={self.folder / file}" for name, file in options.items()]
        return ["munged", "--foreground", "--num-threads=2", *paths]

    def _port(self, node: str) -> int:
        return self._first_port + 1 + self.nodes.index(node)

    def _start(self, name: str, argv: list[str]) -> None:
        """Start a daemon that the kernel kills when this thread ends."""
        with (self.folder / f"{name}.out.log").open("ab") as output:
            self._running[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *argv],
                env=self.environ,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _kill(self, name: str) -> None:
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            # the group, too: slurmctld has a helper
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds, while all daemons live."""
        until = time.monotonic() + START_SECONDS
        while not holds():
            dead = [name for name, process in self._running.items() if process.poll() is not None]
            if dead or time.monotonic() > until:
                why = f"{dead[0]} has ended" if dead else f"not within {START_SECONDS:.0f} s"
                raise NoClusterError(f"{what}: {why}\n{self.logs()}")
            time.sleep(0.1)


def _free_ports(count: int) -> int:
    """The first of `count` neighbouring ports that nobody listens on, below the ephemeral ones."""
    for first in range(20000 + os.getpid() % 97 * 100, 32000, 50):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise NoClusterError("no free ports")
