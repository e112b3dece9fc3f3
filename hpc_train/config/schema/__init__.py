"""The typed schema of a run: every section, key, default and range; one file per subject.

The description of a field is what `hpc-train config init` writes as its comment and what
`hpc-train config schema` hands to editors.
"""

from __future__ import annotations

from pydantic import Field

from hpc_train.config.schema.augmentation import Augmentation
from hpc_train.config.schema.checkpoint import Checkpoint
from hpc_train.config.schema.compress import Compress
from hpc_train.config.schema.data import Data
from hpc_train.config.schema.device import Device
from hpc_train.config.schema.initialization import Initialization
from hpc_train.config.schema.learning_rate import LearningRate
from hpc_train.config.schema.model import Model, Task
from hpc_train.config.schema.optimizer import Optimizer
from hpc_train.config.schema.precision import Precision
from hpc_train.config.schema.ranks import Comm, Schedule
from hpc_train.config.schema.recovery import Recovery
from hpc_train.config.schema.regularization import EarlyStopping, Ensemble, Regularization
from hpc_train.config.schema.run import Run
from hpc_train.config.schema.strategy import Strategy
from hpc_train.config.schema.transfer import Transfer
from hpc_train.config.schema.types import Section, parse_bytes, parse_seconds

__all__ = ["Config", "parse_bytes", "parse_seconds"]


class Config(Section):
    """A whole run."""

    run: Run = Field(default_factory=Run)
    data: Data
    model: Model
    task: Task = Field(default_factory=Task)
    optimizer: Optimizer = Field(default_factory=Optimizer)
    learning_rate: LearningRate = Field(default_factory=LearningRate)
    strategy: Strategy = Field(default_factory=Strategy)
    schedule: Schedule = Field(default_factory=Schedule)
    comm: Comm = Field(default_factory=Comm)
    precision: Precision = Field(default_factory=Precision)
    device: Device = Field(default_factory=Device)
    checkpoint: Checkpoint = Field(default_factory=Checkpoint)
    recovery: Recovery = Field(default_factory=Recovery)
    initialization: Initialization = Field(default_factory=Initialization)
    transfer: Transfer = Field(default_factory=Transfer)
    regularization: Regularization = Field(default_factory=Regularization)
    early_stopping: EarlyStopping = Field(default_factory=EarlyStopping)
    ensemble: Ensemble = Field(default_factory=Ensemble)
    compress: Compress = Field(default_factory=Compress)
    augmentation: list[Augmentation] = Field(default_factory=list)
