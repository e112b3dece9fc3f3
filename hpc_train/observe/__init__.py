"""What a run shows: progress for people, metrics and results for machines."""

from __future__ import annotations

from hpc_train.observe.metrics import MetricsFile, last_batch
from hpc_train.observe.progress import Progress
from hpc_train.observe.result import (
    Result,
    environment,
    read_result,
    told_restarts,
    write_json,
)
from hpc_train.observe.sink import Forgiving, Sink, Start

__all__ = [
    "Forgiving",
    "MetricsFile",
    "Progress",
    "Result",
    "Sink",
    "Start",
    "environment",
    "last_batch",
    "read_result",
    "told_restarts",
    "write_json",
]
