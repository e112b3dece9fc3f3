"""The ranks of a replay: how many seconds each would need for any share, in every step.

Stated speeds: t_r(n) = a + n / speed_r, times a log-normal disturbance of given spread, the same
for every policy. A recorded run: the line a_r + b_r n that its metrics show, times what each step
took beyond or below that line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import HpcTrainError, UsageError
from hpc_train.schedule import Speeds

Floats = NDArray[np.float64]

_KEYS = ("counts", "busy_seconds")


@dataclass(frozen=True)
class Ranks:
    """Ranks with known seconds.

    Attributes:
        fixed: a in seconds, shape (num_steps, num_ranks).
        pace: b in seconds per sample, shape (num_steps, num_ranks).
        batch_size: samples of a global batch.
        source: what they are, for people.
    """

    fixed: Floats
    pace: Floats
    batch_size: int
    source: str

    @property
    def num_steps(self) -> int:
        """Number of steps."""
        return len(self.pace)

    @property
    def num_ranks(self) -> int:
        """Number of ranks."""
        return int(self.pace.shape[1])

    def seconds(self, step: int, counts: NDArray[np.int64]) -> Floats:
        """Seconds of each rank for `counts` samples in `step`, shape (num_ranks,); 0 for none."""
        return np.where(counts > 0, self.fixed[step] + self.pace[step] * counts, 0.0)


def parse_speeds(text: str) -> list[float]:
    """The speeds that "4,4,4,1" states, in samples a second.

    Raises:
        UsageError: if it does not state at least one positive number.
    """
    try:
        speeds = [float(part) for part in text.split(",")]
    except ValueError:
        speeds = []
    if not speeds or not all(0 < speed < float("inf") for speed in speeds):
        raise UsageError(
            f'speeds must be positive numbers, separated by commas ("{text}")',
            where="--speeds",
            hint="for example --speeds 4,4,4,1",
        )
    return speeds


def stated(
    speeds: Sequence[float],
    batch_size: int,
    num_steps: int,
    *,
    fixed_seconds: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Ranks:
    """Ranks of stated speeds.

    Args:
        speeds: samples a second of each rank, > 0.
        batch_size, num_steps: samples of a global batch; steps.
        fixed_seconds: what every rank needs besides its samples, >= 0.
        noise: standard deviation of the logarithm of the seconds, >= 0.
        seed: of the noise.
    """
    noise_rng = np.random.default_rng(seed)
    factor = np.exp(noise * noise_rng.standard_normal((num_steps, len(speeds))))
    listed = ", ".join(f"{speed:g}" for speed in speeds)
    return Ranks(fixed_seconds * factor, factor / np.array(speeds), batch_size, f"speeds {listed}")


def recorded(run: Path) -> Ranks:
    """The ranks of a run, from its metrics.

    Raises:
        HpcTrainError: if there are no metrics, or they do not tell what each rank did.
    """
    path = run / "metrics.jsonl" if run.is_dir() else run
    told = _told(path)
    counts, busy = ([record["before"][key] for record in told] for key in _KEYS)
    if len(counts) < 3 or len({len(row) for row in counts}) != 1:
        raise HpcTrainError(
            f"metrics must tell of each rank, in at least 3 steps (steps told: {len(counts)})",
            where=str(path),
            hint="name a run on 2 to 256 ranks, all of it on the same number",
        )
    amount, seconds = np.array(counts), np.array(busy)
    speeds = Speeds(amount.shape[1])
    own = [amount, seconds]
    if all("claimed" in record for record in told):  # who is slow today claims little
        own = [
            whole - np.array([record["claimed"][key] for record in told])
            for whole, key in zip(own, _KEYS, strict=True)
        ]
    for row, times in zip(*own, strict=True):
        speeds.observe(row.tolist(), times.tolist())
    # a rank that never had a sample: as slow as the slowest
    pace = np.where(speeds.known, speeds.pace, np.nanmax(speeds.pace))
    works = (amount > 0) & (seconds > 0)
    factor = np.where(works, seconds / (speeds.fixed + pace * np.maximum(amount, 1)), 1.0)
    batch_size = int(amount.sum(axis=1).max())
    return Ranks(speeds.fixed * factor, pace * factor, batch_size, f"recorded in {run}")


def _told(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        records = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise HpcTrainError(
            f"cannot read metrics: {error}", where=str(path), hint="name a run directory"
        ) from error
    return [record for record in records if record.get("before")]
