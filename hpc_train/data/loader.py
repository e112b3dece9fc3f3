"""The loader: batches in the order of use, read ahead by a thread.

    follow(works)  ->  reader thread: ids -> blocks -> buffers  ->  queue  ->  get(work)

`follow` tells what will be wanted; `get` gives what is wanted. Where they differ (a new plan) the
batch is read at once, so a wrong forecast costs time and never correctness.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType

from hpc_train.data.blocks import Ids
from hpc_train.data.dataset import Dataset
from hpc_train.data.order import Order
from hpc_train.data.read import Arrays, Reader, delivered_hash
from hpc_train.plan import Work
from hpc_train.record import phase

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Samples:
    """What a rank works on: valid until the next `get` of the same loader.

    Attributes:
        ids: sample ids, shape (n,); n is 0 if the rank sits the batch out.
        arrays: one array per field, shape (n, *field shape).
        digest: `delivered_hash` of ids and arrays.
    """

    ids: Ids
    arrays: Arrays
    digest: int


class Loader:
    """Gives the samples of work, read ahead in the order that `follow` foretold.

    Args:
        dataset: where samples come from.
        order: which samples a global batch holds.
        fields: the fields that are wanted.
        prefetch_batches: how many batches are read ahead.
        cache_bytes: how many bytes of blocks are kept in memory.
    """

    def __init__(
        self,
        dataset: Dataset,
        order: Order,
        fields: Sequence[str],
        *,
        prefetch_batches: int = 4,
        cache_bytes: int = 256 * 2**20,
    ) -> None:
        self.dataset = dataset
        self._order = order
        self._reader = Reader(dataset, fields, cache_bytes)
        self._reading = threading.Lock()
        self._prefetch = prefetch_batches
        self._ahead: _Ahead | None = None
        self._spare: list[Arrays] = []
        self._lent: Arrays | None = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def follow(self, works: Iterator[Work]) -> None:
        """Read ahead what `works` foretells, in place of an earlier forecast.

        What has been read for the earlier one and is foretold again is kept.
        """
        ready = self._stop()
        self._ahead = _Ahead(self, works, self._prefetch, ready)

    def get(self, work: Work) -> Samples:
        """The samples of `work`.

        Raises:
            DataError: if they cannot be read; also when a thread found out earlier.
        """
        with phase("data", batch=work.batch.number):
            if self._lent is not None:
                self._spare.append(self._lent)
                self._lent = None
            samples = self._ahead.take(work) if self._ahead is not None else None
            samples = samples or self.read(work)
            self._lent = samples.arrays
            return samples

    def read(self, work: Work) -> Samples:
        """The samples of `work`, read now."""
        with self._reading:
            ids = self._order.ids(work.batch)[work.start : work.stop]
            arrays = self._buffers(len(ids))
            self._reader.read(ids, arrays)
        return Samples(ids, arrays, delivered_hash(ids, arrays))

    def close(self) -> None:
        """Join the thread and close the files."""
        self._stop()
        with self._reading:
            self._reader.close()

    def _buffers(self, size: int) -> Arrays:
        """Arrays of `size` samples, from batches that are done with where they are large enough."""
        while self._spare:
            arrays = self._spare.pop()
            if all(len(array) == size for array in arrays.values()):
                return arrays
        return self._reader.buffers(size)

    def _stop(self) -> dict[Work, Samples]:
        ready = self._ahead.stop() if self._ahead is not None else {}
        self._ahead = None
        return ready


class _Ahead:
    """The reader thread and the queue between it and the trainer."""

    def __init__(
        self, loader: Loader, works: Iterator[Work], depth: int, ready: dict[Work, Samples]
    ) -> None:
        self._loader = loader
        self._ready = ready
        self._works = works
        self._queue: queue.Queue[tuple[Work, Samples | Exception]] = queue.Queue(depth)
        self._stopping = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="hpc_train-reader", daemon=True)
        self._thread.start()

    def take(self, work: Work) -> Samples | None:
        """The samples of `work` if they are next in the forecast, else None for good."""
        while not self._lost:
            try:
                foretold, samples = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                self._lost = not self._thread.is_alive() and self._queue.empty()
                continue
            if foretold != work:
                self.stop()
            elif isinstance(samples, Exception):
                self.stop()
                raise samples
            else:
                return samples
        return None

    def stop(self) -> dict[Work, Samples]:
        """End the thread; what it has read and nobody took."""
        self._lost = True
        self._stopping.set()
        left = self._drain()  # a thread that waits for a place in the queue ends at once
        self._thread.join()
        return left | self._drain()

    def _drain(self) -> dict[Work, Samples]:
        left = {}
        with suppress(queue.Empty):
            while True:
                work, item = self._queue.get_nowait()
                if isinstance(item, Samples):
                    left[work] = item
        return left

    def _run(self) -> None:
        for work in self._works:
            if self._stopping.is_set():
                return
            try:
                item: Samples | Exception = self._ready.pop(work, None) or self._loader.read(work)
            except Exception as error:
                item = error
            while not self._stopping.is_set():
                try:
                    self._queue.put((work, item), timeout=_POLL_SECONDS)
                    break
                except queue.Full:
                    continue
            if isinstance(item, Exception):
                return
