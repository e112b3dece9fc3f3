"""This system: the real trainer, from HDF5 shards, as `hpc-train run` would."""

from __future__ import annotations

import json
from pathlib import Path

from hpc_train.bench.scaling.clock import PhaseClock, cut
from hpc_train.bench.scaling.measured import Measured
from hpc_train.bench.scaling.workload import Job, sections
from hpc_train.comm import Comm
from hpc_train.config import load
from hpc_train.record import listening
from hpc_train.train import Trainer


def measure(job: Job, comm: Comm) -> Measured:
    """Fit the workload with the trainer, and listen to its phases."""
    trainer = Trainer(config=load(None, sections=sections(job)).config, comm=comm, quiet=True)
    clock = PhaseClock()
    with listening(clock):
        result = trainer.fit()
    steps = cut(clock.phases)[-job.steps :]
    losses = _losses(Path(result.run_dir)) if comm.world.is_coordinator else []
    return Measured([step.seconds for step in steps], losses, steps)


def _losses(run_dir: Path) -> list[float]:
    """The mean loss of every global batch of a run."""
    with (run_dir / "metrics.jsonl").open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [record["loss"] for record in records if record["kind"] == "step"]
