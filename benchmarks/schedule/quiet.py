"""How much of the machine others used while something was measured, so that it can be repeated.

busy seconds of all cores (/proc/stat)  -  CPU seconds of this process and its ended children
"""

import os
import resource
import time

TOLERATED = 0.03  # of the machine's cores
TRIES = 4
FIRST = os.getpriority(os.PRIO_PROCESS, 0) < 0  # before all others: they hardly disturb


def _busy():
    with open("/proc/stat", encoding="ascii") as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    user, nice, system, _, _, interrupts, soft, stolen = ticks
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _own():
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Quiet:
    """Measures, again where others took part; remembers the largest part that had to be accepted.

    Attributes:
        worst: the part of all cores that others used in a measurement that counted.
        repeated: how many measurements did not count.
    """

    def __init__(self):
        self.worst = 0.0
        self.repeated = 0

    def measure(self, function):
        """What `function` gives in the least disturbed of up to TRIES calls."""
        found = []
        for _ in range(TRIES):
            began, busy, own = time.monotonic(), _busy(), _own()
            value = function()
            seconds = (time.monotonic() - began) * os.cpu_count()
            others = ((_busy() - busy) - (_own() - own)) / seconds
            found.append((others, value))
            if others <= TOLERATED or FIRST:
                break
        self.repeated += len(found) - 1
        others, value = min(found, key=lambda pair: pair[0])
        self.worst = max(self.worst, others)
        return value


QUIET = Quiet()
