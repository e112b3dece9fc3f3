"""HDF5 data sets: format, order, reading ahead. The only home of h5py."""

from __future__ import annotations

from hpc_train.data.dataset import Dataset, open_dataset, share_dataset
from hpc_train.data.loader import Delivered, Loader, Samples, batch_memory
from hpc_train.data.moments import has_statistics
from hpc_train.data.node_cache import NodeCache
from hpc_train.data.order import VERSION as ORDER_VERSION
from hpc_train.data.order import Order, auto_window, make_order
from hpc_train.data.order.partners import partners
from hpc_train.data.sharing import share_blocks
from hpc_train.data.stage import Stage, staging_folder
from hpc_train.data.statistics import with_statistics
from hpc_train.data.windows import Windows

__all__ = [
    "ORDER_VERSION",
    "Dataset",
    "Delivered",
    "Loader",
    "NodeCache",
    "Order",
    "Samples",
    "Stage",
    "Windows",
    "auto_window",
    "batch_memory",
    "has_statistics",
    "make_order",
    "open_dataset",
    "partners",
    "share_blocks",
    "share_dataset",
    "staging_folder",
    "with_statistics",
]
