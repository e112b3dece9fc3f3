"""What is measured: one CNN, heavy enough to keep a core busy, on images made for it.

    mode      global batch         share of a rank
    strong    batch_size           batch_size / ranks      the same work by more hands
    weak      batch_size x ranks   batch_size              more work by more hands

A micro-batch is the same everywhere, so that kernels run at the same speed everywhere.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hpc_train.bench.harness import read_results
from hpc_train.data.index import FieldInfo
from hpc_train.data.writer import ShardWriter
from hpc_train.observe import write_json

MODES = ("strong", "weak")
SHAPE = (3, 32, 32)  # channels, height, width of an image
NUM_CLASSES = 10
_SAMPLES = 2048  # or one of the largest batches, if that is more
_SEED = 0


@dataclass(frozen=True)
class Job:
    """One measurement: so many ranks train the workload in one way.

    Attributes:
        side: who trains, a name in `sides.SIDES`.
        ranks: number of ranks, >= 1.
        batch_size: samples of a global batch.
        micro_batch_size: most samples that go through the network at once.
        steps: steps that count.
        warmup: steps before them that do not count.
        threads: torch threads per rank.
        data: name of the data set, whole global batches of it.
        folder: where the job may write; all ranks see it.
    """

    side: str
    ranks: int
    batch_size: int
    micro_batch_size: int
    steps: int
    warmup: int
    threads: int
    data: str
    folder: str

    @property
    def result(self) -> Path:
        """The file that rank 0 writes."""
        return Path(self.folder) / "measured.json"

    @property
    def file(self) -> Path:
        """The file that tells ranks of the job."""
        return Path(self.folder) / "job.json"

    def write(self) -> None:
        """Write `file`."""
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        write_json(self.file, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Job:
        """The job that `write` wrote."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def sections(job: Job) -> dict[str, dict[str, Any]]:
    """The configuration of a run that trains the workload as `job` says."""
    return {
        "run": {
            "dir": str(Path(job.folder) / "run"),
            "seed": _SEED,
            "steps": job.warmup + job.steps,
            "evaluate": "never",
        },
        "data": {
            "train": job.data,
            "inputs": ["image"],
            "targets": ["label"],
            "batch_size": job.batch_size,
            "micro_batch_size": job.micro_batch_size,
        },
        "model": {"name": "cnn", "channels": [32, 64, 128], "hidden": 128},
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.9},
        "device": {"name": "cpu", "threads": job.threads},
        "checkpoint": {"every": "never"},
    }


def part_of_data(folder: Path, num_samples: int, batch_size: int) -> str:
    """The name of as many samples as make whole global batches: all steps are of one size then."""
    return f"{folder}[0:{num_samples // batch_size * batch_size}]"


def write_data(folder: Path, largest_batch: int) -> int:
    """Write the data set: a pattern per class under noise; gives the number of samples.

    Args:
        folder: where it shall lie; must not exist.
        largest_batch: samples of the largest global batch.
    """
    samples = max(_SAMPLES, largest_batch)
    noise_rng = np.random.default_rng(_SEED)
    patterns = noise_rng.integers(0, 192, (NUM_CLASSES, *SHAPE), np.uint8)
    fields = {"image": FieldInfo(SHAPE, "uint8"), "label": FieldInfo((), "int64")}
    with ShardWriter(folder, fields) as writer:
        for start in range(0, samples, _SAMPLES):
            count = min(_SAMPLES, samples - start)
            labels = noise_rng.integers(0, NUM_CLASSES, count)
            noise = noise_rng.integers(0, 64, (count, *SHAPE), np.uint8)
            writer.append({"image": patterns[labels] + noise, "label": labels})
    return samples


def read_measured(job: Job) -> dict[str, Any] | None:
    """What the ranks of a job measured; None if they left nothing."""
    return read_results(job.result) if job.result.exists() else None
