"""Files and folders that are there completely or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpc_train.errors import DataError


@contextmanager
def arriving(path: Path) -> Iterator[Path]:
    """A draft beside `path`, of the same suffix, that gets its name at the end.

    Raises:
        DataError: if it cannot be written.
    """
    if not path.parent.is_dir():
        raise DataError("cannot write: no such folder", where=str(path.parent))
    draft = path.with_name(f".{path.stem}-{os.getpid()}.tmp{path.suffix}")
    try:
        yield draft
        draft.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"cannot write: {reason}", where=str(path)) from error
    finally:
        if draft.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
        draft.unlink(missing_ok=True)
