"""The round-robin policy: whole micro-batches, dealt in turn like cards.

    batch of 10, micro-batches of 3, two ranks      rank 0: 3 + 3    rank 1: 3 + 1

It knows no speeds. Its merit is that every rank but the last in turn computes full micro-batches
only, of one shape; its fault is that shares differ by a whole micro-batch.
"""

from __future__ import annotations

from hpc_train.schedule.situation import Policy, Situation, refuse_shares


def _split(situation: Situation) -> tuple[int, ...]:
    refuse_shares("round_robin", situation)
    counts = [0] * situation.num_ranks
    starts = range(0, situation.batch_size, situation.quantum)
    for turn, start in enumerate(starts):
        size = min(situation.quantum, situation.batch_size - start)
        counts[turn % len(counts)] += size
    return tuple(counts)


POLICY = Policy(_split, measures=False)
