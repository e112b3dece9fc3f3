"""Stale synchronous parallel, simulated: what bounded staleness can gain over waiting in each step.

Every batch is cut into one range for each worker; a range of batch u may begin once all of batch
u - 1 - s is done; a free worker takes the next range. Communication costs nothing here.
"""

import heapq

import numpy as np


def seconds(durations, staleness):
    """How long it takes, in the unit of `durations`, shape (num_batches, num_workers)."""
    num_batches, num_workers = durations.shape
    free = [(0.0, worker) for worker in range(num_workers)]
    done = []  # when each batch was complete
    for batch in range(num_batches):
        gate = batch - 1 - staleness
        opened = done[gate] if gate >= 0 else 0.0
        ends = []
        for number in range(num_workers):
            at, worker = heapq.heappop(free)
            end = max(at, opened) + durations[batch, number]
            ends.append(end)
            heapq.heappush(free, (end, worker))
        done.append(max([*ends, *done[-1:]]))  # updates are made in the order of batches
    return done[-1]


def bound(num_workers, staleness, spread, num_batches=2000, seed=0):
    """Synchronous seconds over those of bounded staleness, for log-normal jitter of `spread`."""
    random = np.random.default_rng(seed)
    durations = np.exp(spread * random.standard_normal((num_batches, num_workers)))
    return seconds(durations, 0) / seconds(durations, staleness)


if __name__ == "__main__":
    for s in (1, 3, 10):
        print(s, bound(8, s, 0.2))
