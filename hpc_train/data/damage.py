"""Going on without what cannot be read: whole blocks are left out, each one told of once.

    request   a a b b b c        b cannot be read        ->        a a c, 3 skipped

A block is bad for good, and for every rank alike, since it is the file that is damaged. So a
batch holds the same samples on any number of ranks, and what is left counts by its weight.
"""

from __future__ import annotations

import logging
import threading

import numpy as np

from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Key
from hpc_train.data.read import Reader, Request
from hpc_train.errors import DataError

logger = logging.getLogger(__name__)


class Damage:
    """The blocks that could not be read so far; safe to use from several threads.

    Args:
        reader: tries them.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._blocks: set[Key] = set()
        self._lock = threading.Lock()

    def probe(self, request: Request) -> bool:
        """Try every block of a request on its own; whether one of them is bad."""
        bad_shards: dict[int, DataError] = {}
        for part in request.parts:
            if part.key in self._blocks:
                continue
            try:
                if part.key[0] in bad_shards:
                    raise bad_shards[part.key[0]]
                self._check_shard(part.key[0], bad_shards)
                self._reader.probe(part)
            except DataError as error:
                self._tell(part.key, error)
        # another thread may have found it in the meantime
        return any(part.key in self._blocks for part in request.parts)

    def leave_out(self, ids: Ids, *, halves: bool) -> Ids:
        """Those of `ids` with no row in a bad block; by `halves`, both of a pair or none.

        Args:
            ids: samples, shape (n,).
            halves: whether sample k belongs with sample k + n / 2.
        """
        if not self._blocks:
            return ids
        keep = np.ones(len(ids), bool)
        for part in self._reader.locate(ids).parts:
            if part.key in self._blocks:
                keep[part.places // self._reader.span] = False
        if halves:
            own, other = np.split(keep, 2)
            keep = np.tile(own & other, 2)
        return ids[keep]

    def _check_shard(self, shard: int, bad: dict[int, DataError]) -> None:
        """Find out once where a whole file is bad: trying takes long."""
        try:
            self._reader.check(shard)
        except DataError as error:
            bad[shard] = error
            raise

    def _tell(self, key: Key, error: DataError) -> None:
        with self._lock:
            is_new = key not in self._blocks
            self._blocks.add(key)
        if is_new:
            logger.warning(
                "%s: block %d is skipped: %s", error.where or "data", key[1], error.message
            )
