"""How much of the machine others used while something was measured, so that it can be repeated.

busy seconds of all cores (/proc/stat)  -  CPU seconds of this process and its ended children

And cores that do not idle, where a host would lend them to others.
"""

import os
import resource
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from hpc_train.bench.quota import CGROUP, inside

TOLERATED = 0.03  # of the machine's cores
TRIES = 4
FIRST = os.getpriority(os.PRIO_PROCESS, 0) < 0  # before all others: they hardly disturb
SPIN = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
while True:
    pass
"""


def _busy():
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    user, nice, system, _, _, interrupts, soft, stolen = ticks
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _used(pid):
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Quiet:
    """Measures, again where others took part; remembers the largest part that had to be accepted.

    Attributes:
        worst: the part of all cores that others used in a measurement that counted.
        repeated: how many measurements did not count.
        spinners: processes that keep cores from idling.
    """

    def __init__(self):
        self.worst = 0.0
        self.repeated = 0
        self.spinners = []

    def measure(self, function):
        """What `function` gives in the least disturbed of up to TRIES calls."""
        found = []
        for _ in range(TRIES):
            began, used = time.monotonic(), self._others()
            value = function()
            seconds = (time.monotonic() - began) * os.cpu_count()
            others = (self._others() - used) / seconds
            found.append((others, value))
            if others <= TOLERATED or FIRST:
                break
        self.repeated += len(found) - 1
        others, value = min(found, key=lambda pair: pair[0])
        self.worst = max(self.worst, others)
        return value

    def _others(self):
        """CPU seconds of all that is not measured, up to now."""
        return _busy() - _own() - sum(_used(process.pid) for process in self.spinners)


QUIET = Quiet()


@contextmanager
def awake():
    """Let no core idle: on each one a process spins that runs only where nobody else wants to.

    A virtual machine's idle core is lent to others by its host, and who wakes up there finds its
    caches empty. The processes are in a control group of the least weight.
    """
    group = CGROUP / f"hpc_train-awake-{os.getpid()}"
    group.mkdir()
    (group / "cpu.shares").write_text("2")
    calls = [[sys.executable, "-c", SPIN, str(core)] for core in os.sched_getaffinity(0)]
    QUIET.spinners = [subprocess.Popen(inside(group, call)) for call in calls]
    try:
        time.sleep(1.0)  # they are there
        yield
    finally:
        for process in QUIET.spinners:
            process.kill()
            process.wait()
        QUIET.spinners = []
        group.rmdir()
