"""Lines for people: one log file per rank, and rank 0 on the terminal; configured only by `cli`."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = "hpc_train"
_FORMAT = "%(asctime)s %(levelname)-7s rank=%(rank)d %(name)s: %(message)s"


class _Rank(logging.Filter):
    """Adds the rank to every record."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def filter(self, record: logging.LogRecord) -> bool:
        record.rank = self._rank
        return True


class _Plain(logging.Formatter):
    """`warning: ...` on the terminal; information as it is."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        return text if record.levelno <= logging.INFO else f"{record.levelname.lower()}: {text}"


def to_terminal(*, verbose: bool = False) -> None:
    """Show warnings (with `verbose`, all information) on standard error."""
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    handler = logging.StreamHandler(sys.stderr)
    handler.setLevel(logging.INFO if verbose else logging.WARNING)
    handler.setFormatter(_Plain())
    logger.handlers[:] = [handler]


@contextmanager
def errors_only() -> Iterator[None]:
    """Let nothing but errors be logged, while the block lasts."""
    logger = logging.getLogger(ROOT)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def to_file(path: Path, rank: int) -> logging.Handler:
    """Write this rank's log to `path` as well; close with `close_file`.

    Where no log was configured, Python shows warnings on standard error: a file must not end that.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter(_FORMAT))
    handler.addFilter(_Rank(rank))
    logger = logging.getLogger(ROOT)
    logger.setLevel(logging.DEBUG)
    if rank == 0 and not logger.hasHandlers() and logging.lastResort is not None:
        logger.addHandler(logging.lastResort)
    logger.addHandler(handler)
    return handler


def close_file(handler: logging.Handler) -> None:
    """Stop writing to the file of `handler`."""
    logger = logging.getLogger(ROOT)
    logger.removeHandler(handler)
    if logging.lastResort is not None:
        logger.removeHandler(logging.lastResort)
    handler.close()
