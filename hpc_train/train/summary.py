"""What people want to know at the beginning of a run."""

from __future__ import annotations

from pathlib import Path

from hpc_train.train.build import Parts


def summary(parts: Parts, folder: Path, batch: int) -> tuple[str, ...]:
    """Lines about a run that begins at batch `batch`: ranks, data, model."""
    world, config = parts.comm.world, parts.config
    weights = sum(learner.num_weights for learner in parts.learners)
    samples = parts.survey.course.num_samples
    nodes = "" if world.num_nodes == 1 else f" on {world.num_nodes} nodes"
    ranks = f"{world.size} rank" + ("s" if world.size > 1 else "")
    lines = [
        f"run        {folder}",
        f"ranks      {ranks}{nodes}, {parts.device.type}, {parts.threads} thread"
        f"{'s' if parts.threads > 1 else ''} each",
        f"data       {samples:,} samples, global batch {config.data.batch_size}, "
        f"{parts.survey.course.per_epoch:,} batches an epoch",
        f"model      {config.model.name}, {weights:,} weights, {config.optimizer.name}",
    ]
    if batch:
        lines.append(f"resumed    at batch {batch:,}")
    return tuple(lines)
