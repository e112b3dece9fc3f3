"""What the scheduler reaches on simulated ranks, with the delays of training."""

import statistics

import numpy as np

from hpc_train.schedule import POLICIES, Reserve, Scheduler, Situation, replay, split


def run(pace_of, batch_size, num_steps, noise, seed):
    """Finish seconds of each step under min_finish_time, and of an oracle that knows `pace_of`."""
    random = np.random.default_rng(seed)
    num_ranks = len(pace_of(0))
    jitter = np.exp(noise * random.standard_normal((num_steps, num_ranks)))
    scheduler = Scheduler(
        POLICIES["min_finish_time"], Situation.unknown(batch_size, num_ranks), num_steps
    )
    steps = replay(scheduler, lambda k, n: pace_of(k) * n * jitter[k], num_steps)
    ours = [step.finish for step in steps]
    oracle = []
    for k in range(num_steps):
        counts = split(batch_size, np.zeros(num_ranks), pace_of(k))
        oracle.append(float((pace_of(k) * counts * jitter[k]).max()))
    return ours, oracle, steps


def drifting(seed, num_ranks=16, epochs=10):
    """Every 200 steps one rank's seconds are multiplied by 0.5, 2 or 4; 2 % noise."""
    random = np.random.default_rng(seed)
    paces = [random.uniform(0.5, 2, num_ranks)]
    for _ in range(epochs - 1):
        paces.append(paces[-1].copy())
        paces[-1][random.integers(num_ranks)] *= random.choice([0.5, 2.0, 4.0])
    ours, oracle, _ = run(lambda k: paces[k // 200], 64 * num_ranks, 200 * epochs, 0.02, seed)
    return sum(oracle) / sum(ours)


def slowed_down(num_ranks, seed):
    """Steps from a four-fold slow-down of one rank until shares are within 5 % of the optimum."""

    def pace(k):
        return np.where((np.arange(num_ranks) == 1) & (k >= 100), 4.0, 1.0)

    _, _, steps = run(pace, 64 * num_ranks, 150, 0.02, seed)
    best = (pace(100) * split(64 * num_ranks, np.zeros(num_ranks), pace(100))).max()
    late = [k for k in range(100, 150) if (pace(k) * steps[k].counts).max() > 1.05 * best]
    return max(late, default=99) - 99


def homogeneous(num_ranks, seed):
    """Equal ranks: seconds of equal shares over ours."""
    random = np.random.default_rng(seed)
    ours, _, _ = run(lambda k: np.ones(num_ranks), 32 * num_ranks, 2000, 0.02, seed)
    equal = 32 * np.exp(0.02 * random.standard_normal((2000, num_ranks))).max(axis=1)
    return equal.sum() / sum(ours)


def stuttering(num_ranks, seed, num_steps=300):
    """Equal ranks of which each takes twice as long, in the mean, in a tenth of its steps."""
    random = np.random.default_rng(seed)
    shape = (num_steps, num_ranks)
    stutter = (random.random(shape) < 0.1) * random.exponential(1.0, shape)
    seconds = np.exp(0.1 * random.standard_normal(shape)) * (1 + stutter)
    scheduler = Scheduler(
        POLICIES["min_finish_time"], Situation.unknown(52 * num_ranks, num_ranks), num_steps
    )
    steps = replay(scheduler, lambda k, n: (3 + n) * seconds[k], num_steps)
    equal = (55 * seconds).max(axis=1).sum()
    return equal / sum(step.finish for step in steps)


def hundred_times_slower(seed, batch_size=64):
    """A rank a hundred times slower: seconds of the fast one alone over ours, start-up excluded."""
    ours, _, _ = run(lambda k: np.array([1.0, 100.0]), batch_size, 3000, 0.02, seed)
    return batch_size * 2980 / sum(ours[20:])


def claimed(num_ranks, spread, seed, num_steps=300):
    """Equal ranks with log-normal noise: seconds by forecast alone over those with a reserve."""
    random = np.random.default_rng(seed)
    noise = np.exp(spread * random.standard_normal((num_steps, num_ranks)))
    found = []
    for policy in ("min_finish_time", "dynamic"):
        reserve = Reserve(0.2) if policy == "dynamic" else None
        situation = Situation.unknown(52 * num_ranks, num_ranks)
        scheduler = Scheduler(POLICIES[policy], situation, num_steps, reserve)
        steps = replay(scheduler, lambda k, n: (3 + n) * noise[k], num_steps)
        found.append(sum(step.finish for step in steps))
    return found[0] / found[1]


def interrupted(seed, num_steps=260, skipped=60):
    """A rank three times as slow, on a machine as traced: over the best single split in hindsight.

    Noise of 3 %, drift of both, spikes of single steps, spells of a few steps in which the slow
    rank is slower still, a slow start, and a stop of two seconds every 28 steps, not counted.
    """
    random = np.random.default_rng(seed)
    slow = np.exp(np.cumsum(0.004 * random.standard_normal((num_steps, 1)), axis=0)).repeat(2, 1)
    start = 0
    while start < num_steps:
        start += int(random.geometric(1 / 70))
        stop = start + int(random.integers(2, 7))
        slow[start:stop] *= random.uniform(1.15, 1.45, 1) ** [random.integers(0, 2) / 3, 1]
        start = stop
    slow[:14] *= np.linspace([1.15, 1.5], [1.0, 1.15], 14)
    slow *= np.exp(0.03 * random.standard_normal(slow.shape))
    slow *= 1 + 0.25 * (random.random(slow.shape) < [0.04, 0.01])
    fixed = np.array([2.0, 9.5])
    pace = np.array([0.122, 0.39]) * np.exp(0.03 * random.standard_normal(2))
    stops = np.zeros((num_steps, 2))
    stops[12::28, 0] = 2000.0

    def seconds(k, n):
        return (fixed + pace * n) * slow[k]

    scheduler = Scheduler(POLICIES["min_finish_time"], Situation.unknown(640, 2), num_steps)
    steps = replay(scheduler, lambda k, n: seconds(k, n) + stops[k], num_steps)
    ours = sum(seconds(k, steps[k].counts).max() for k in range(skipped, num_steps))
    splits = [np.array([640 - n, n]) for n in range(100, 170, 2)]
    best = min(sum(seconds(k, n).max() for k in range(skipped, num_steps)) for n in splits)
    return best / ours


def figures():
    """All rows: name -> median, lowest, bound that must hold, and what it is."""
    rows = {
        "drifting speeds, 16 ranks, vs an oracle": ([drifting(s) for s in range(20)], 0.96),
        "equal ranks (2, 4, 16) vs static": (
            [homogeneous(p, s) for p in (2, 4, 16) for s in range(3)],
            0.99,
        ),
        "equal ranks (2, 4, 8) that stutter vs static": (
            [stuttering(p, s) for p in (2, 4, 8) for s in range(12)],
            0.99,
        ),
        "a rank 3x slower, spells and stops, vs the best single split": (
            [interrupted(s) for s in range(60)],
            None,
        ),
        "a rank 100x slower vs the fast one alone": (
            [hundred_times_slower(s) for s in range(5)],
            0.97,
        ),
        "dynamic vs min_finish_time, 4 ranks, noise of 20 %": (
            [claimed(4, 0.2, s) for s in range(9)],
            1.0,
        ),
        "dynamic vs min_finish_time, 4 ranks, noise of 2 %": (
            [claimed(4, 0.02, s) for s in range(9)],
            None,
        ),
        "steps from a 4x slow-down to within 5 %": (
            [slowed_down(p, s) for p in (2, 4, 16) for s in range(5)],
            5,
        ),
    }
    return {
        name: {
            "median": float(statistics.median(values)),
            "low": float(min(values)),
            "high": float(max(values)),
            "must": must,
        }
        for name, (values, must) in rows.items()
    }


if __name__ == "__main__":
    for title, figure in figures().items():
        print(title, figure)
