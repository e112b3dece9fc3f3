"""Results as an HDF5 file: one dataset per array, there completely or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from hpc_train.errors import DataError


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[np.generic]], notes: Mapping[str, Any]
) -> None:
    """Write `arrays`, and `notes` as attributes of the file; one of that name is replaced.

    Raises:
        DataError: if it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with h5py.File(draft, "w") as file:
            for name, array in arrays.items():
                file.create_dataset(name, data=array)
            file.attrs.update(notes)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise DataError(f"cannot write: {reason}", where=str(path)) from error
