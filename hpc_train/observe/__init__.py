"""What a run shows: progress for people, metrics and results for machines."""

from __future__ import annotations

from hpc_train.observe.metrics import MetricsFile
from hpc_train.observe.progress import Progress
from hpc_train.observe.result import Result, environment, read_result, write_json
from hpc_train.observe.sink import Forgiving, Sink, Start

__all__ = [
    "Forgiving",
    "MetricsFile",
    "Progress",
    "Result",
    "Sink",
    "Start",
    "environment",
    "read_result",
    "write_json",
]
