"""Groups of ranks for tests: one rank, or several threads that agree in memory."""

import json
import threading

import numpy as np

from hpc_train.world import World


class Solo:
    """A group of one rank."""

    world = World.from_hosts(["here"], 0)

    def sum(self, values):
        return np.array(values)

    def gather(self, value):
        return [json.loads(json.dumps(value))]

    def broadcast(self, value, root=0):
        return json.loads(json.dumps(value))

    def barrier(self, seconds=None):
        """All one of them are here."""


class Threads:
    """A group whose ranks are threads of this process."""

    def __init__(self, rank, size, slots, barrier):
        self.world = World.from_hosts(["here"] * size, rank)
        self._slots = slots
        self._barrier = barrier

    def gather(self, value):
        self._slots[self.world.rank] = json.dumps(value)
        self._barrier.wait()
        values = [json.loads(text) for text in self._slots]
        self._barrier.wait()
        return values

    def broadcast(self, value, root=0):
        return self.gather(value)[root]

    def sum(self, values):
        return np.sum([np.array(v) for v in self.gather(np.asarray(values).tolist())], axis=0)

    def barrier(self, seconds=None):
        self._barrier.wait(seconds)


def run_ranks(size, function):
    """What `function(group)` gives on each of `size` ranks, in their order."""
    slots, barrier = [None] * size, threading.Barrier(size, timeout=60)
    results = [None] * size
    errors = []

    def run(rank):
        try:
            results[rank] = function(Threads(rank, size, slots, barrier))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results
