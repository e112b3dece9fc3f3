"""hpc_train: trains PyTorch models from HDF5 shards over MPI, on workstations and clusters.

Importing this package starts neither MPI nor torch: `Trainer` is loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Trainer", "__version__"]

if TYPE_CHECKING:
    from hpc_train.train import Trainer


def __getattr__(name: str) -> Any:
    if name == "Trainer":
        from hpc_train.train import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
