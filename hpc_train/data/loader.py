"""The loader: batches in the order of use, read ahead by threads.

    follow(works)  ->  readers: ids -> blocks -> cache -> buffers  ->  get(work)

`follow` tells what will be wanted; `get` gives what is wanted. Where they differ (a new plan) the
batch is read at once, so a wrong forecast costs time and never correctness.

Blocks are fetched in the order of first use, as far ahead as fits `cache_bytes` beside the blocks
that foretold batches still use; batches are gathered `prefetch_batches` ahead into buffers that
are used again. A new forecast finds the blocks of the earlier one in the cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.ahead import Ahead
from hpc_train.data.blocks import Ids
from hpc_train.data.cache import Key
from hpc_train.data.damage import Damage
from hpc_train.data.dataset import Dataset
from hpc_train.data.digest import Hashes, digest_of, sample_hashes
from hpc_train.data.node_cache import NodeCache
from hpc_train.data.order import Order
from hpc_train.data.read import Allocate, Arrays, Reader, Request
from hpc_train.data.routes.mapping import huge_pages
from hpc_train.data.stage import Stage
from hpc_train.errors import DataError
from hpc_train.plan import Batch, Work
from hpc_train.record import phase

_HUGE_FROM_BYTES = 2**20


@dataclass(frozen=True)
class Delivered:
    """What was made of arrays where they will be used, such as tensors on a device.

    Attributes:
        parts: by field; cut along their first axis like the arrays.
        use: to be called before they are used.
        finish: returns when the arrays may be overwritten.
    """

    parts: Mapping[str, Any]
    use: Callable[[], None]
    finish: Callable[[], None]

    def cut(self, part: slice) -> Delivered:
        """The same of some of the samples."""
        return replace(self, parts={name: whole[part] for name, whole in self.parts.items()})


@dataclass(frozen=True)
class Samples:
    """What a rank works on: valid until the next `get` of the same loader.

    Attributes:
        ids: sample ids, shape (n,); n is 0 if the rank sits the batch out.
        arrays: one array per field, shape (n, *field shape).
        digest: `delivered_hash` of ids and arrays.
        buffers: what `arrays` are the first rows of.
        partners: as many samples to mix them with; None if none are wanted.
        skipped: how many more there would be if they could be read.
        delivered: what the loader's `deliver` has made of the arrays.
        hashes: of each sample, shape (n,), whose sum is `digest`.
    """

    ids: Ids
    arrays: Arrays
    digest: int
    buffers: Arrays = field(default_factory=dict, repr=False, compare=False)
    partners: Samples | None = None
    skipped: int = 0
    delivered: Delivered | None = field(default=None, repr=False, compare=False)
    hashes: Hashes | None = field(default=None, repr=False, compare=False)

    def digest_of(self, pieces: Sequence[tuple[int, int]]) -> int:
        """The digest of the samples from the one to the other, of each piece."""
        assert self.hashes is not None
        found = sum(digest_of(self.hashes[first:stop]) for first, stop in pieces)
        return found & 0xFFFFFFFF


def wanted(numbers: Ids, work: Work) -> Ids:
    """Those of a global batch that are read for `work`: its own, then what it may claim."""
    own, (first, stop) = numbers[work.start : work.stop], work.reserve
    return own if first == stop else np.concatenate((own, numbers[first:stop]))


def batch_memory(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array for batches; a large one in huge pages."""
    count = math.prod(shape)
    if count * dtype.itemsize < _HUGE_FROM_BYTES:
        return np.empty(shape, dtype)
    return np.frombuffer(huge_pages(count * dtype.itemsize), dtype, count).reshape(shape)


class Loader:
    """Gives the samples of work, read ahead in the order that `follow` foretold.

    Args:
        dataset: where samples come from.
        order: which samples a global batch holds.
        fields: the fields that are wanted.
        prefetch_batches: how many batches are gathered ahead, >= 1.
        cache_bytes: how many bytes of blocks are kept in memory, >= 0; batches come on top.
        num_readers: how many threads read ahead, >= 1.
        skip_damage: leave out samples that cannot be read, in place of an error.
        partners: for each place of a global batch that of the sample to mix it with; None for no
            such samples.
        node_cache: blocks that the ranks of a node share; None where each keeps its own.
        stage: copies of shards to be read in place of them.
        allocate: makes the arrays, which are used again and again.
        deliver: called with each batch as soon as its arrays are filled, by the thread that did.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        fields: Sequence[str],
        *,
        prefetch_batches: int = 4,
        cache_bytes: int = 256 * 2**20,
        num_readers: int = 2,
        skip_damage: bool = False,
        partners: Callable[[Batch], Ids] | None = None,
        node_cache: NodeCache | None = None,
        stage: Stage | None = None,
        allocate: Allocate = batch_memory,
        deliver: Callable[[Arrays], Delivered] | None = None,
    ) -> None:
        self.dataset = dataset
        self._order = order
        self._partners = partners
        # a shuffle of all samples uses single rows of blocks: only what must be read whole is
        self._uses_blocks = order.uses_blocks
        self._reader = Reader(dataset, fields, cache_bytes, node_cache, stage)
        self._damage = Damage(self._reader) if skip_damage else None
        self._ordering = threading.Lock()
        self._depth = prefetch_batches
        self._num_readers = num_readers
        self._ahead: Ahead[Samples] | None = None
        self._spare: list[Arrays] = []
        self._lent: Samples | None = None
        self._allocate = allocate
        self._deliver = deliver

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def bytes_read(self) -> int:
        """Bytes read from files so far, as they are in memory; a block read twice counts twice."""
        return self._reader.bytes_read

    def follow(self, works: Iterator[Work]) -> None:
        """Read ahead what `works` foretells; an earlier forecast is dropped."""
        self._stop()
        self._ahead = Ahead(
            self._reader,
            works,
            self._look_up,
            self._gather,
            depth=self._depth,
            num_threads=self._num_readers,
        )

    def get(self, work: Work) -> Samples:
        """The samples of `work`.

        Raises:
            DataError: if they cannot be read; also when a thread found out earlier.
        """
        with phase("data", batch=work.batch.number):
            if self._lent is not None:
                if self._lent.delivered is not None:
                    self._lent.delivered.finish()
                self._spare.append(self._lent.buffers)
                self._lent = None
            samples = self._ahead.take(work) if self._ahead is not None else None
            samples = samples or self.read(work)
            self._lent = samples
            return samples

    def read(self, work: Work) -> Samples:
        """The samples of `work`, read now."""
        return self._gather(self._request(work))

    def close(self) -> None:
        """Join the threads and close the files."""
        self._stop()
        self._reader.close()

    def _request(self, work: Work) -> Request:
        with self._ordering:  # orders keep what they computed last
            ids = self._order.ids(work.batch)
        mine = wanted(ids, work)
        if self._partners is not None:
            mine = np.concatenate((mine, ids[wanted(self._partners(work.batch), work)]))
        return self._reader.locate(mine)

    def _look_up(self, work: Work) -> tuple[Request, list[Key]]:
        request = self._without_damage(self._request(work))
        if self._uses_blocks:
            return request, [part.key for part in request.parts]
        needed = {shard for shard in request.of_shards if self._reader.needs_blocks(shard)}
        if not needed:
            return request, []
        return request, [part.key for part in request.parts if part.key[0] in needed]

    def _without_damage(self, request: Request) -> Request:
        """What of a request lies in no block that is known to be bad."""
        if self._damage is None:
            return request
        left = self._damage.leave_out(request.ids, halves=self._partners is not None)
        lost = len(request.ids) - len(left)
        if not lost:
            return request
        return replace(self._reader.locate(left), skipped=request.skipped + lost)

    def _gather(self, request: Request) -> Samples:
        """The samples of a request; without those that cannot be read, if they are skipped."""
        while True:
            request = self._without_damage(request)
            try:
                return self._assemble(request)
            except DataError:
                if self._damage is None or not self._damage.probe(request):
                    raise

    def _assemble(self, request: Request) -> Samples:
        size = len(request.ids)
        buffers = self._buffers(size)
        arrays = {name: buffer[:size] for name, buffer in buffers.items()}
        self._reader.gather(request, arrays)
        delivered = None if self._deliver is None else self._deliver(arrays)
        ids, partners, skipped = request.ids, None, request.skipped
        if self._partners is not None:
            half, skipped = size // 2, skipped // 2  # the samples themselves, then their partners
            other, ready = _cut(arrays, delivered, slice(half, None))
            partners = Samples(ids[half:], other, 0, delivered=ready)
            ids = ids[:half]
            arrays, delivered = _cut(arrays, delivered, slice(half))
        hashes = sample_hashes(ids, arrays)
        digest = digest_of(hashes)
        return Samples(ids, arrays, digest, buffers, partners, skipped, delivered, hashes)

    def _buffers(self, size: int) -> Arrays:
        """Arrays of at least `size` samples, from batches that are done with if they suffice."""
        while True:
            try:
                buffers = self._spare.pop()
            except IndexError:  # other threads pop, too
                return self._reader.buffers(size, self._allocate)
            if all(len(buffer) >= size for buffer in buffers.values()):
                return buffers

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None


def _cut(
    arrays: Arrays, delivered: Delivered | None, part: slice
) -> tuple[Arrays, Delivered | None]:
    """Some of the samples."""
    found = {name: array[part] for name, array in arrays.items()}
    return found, delivered and delivered.cut(part)
