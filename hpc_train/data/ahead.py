"""Reader threads that work off an agenda: blocks are fetched and batches gathered before use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from hpc_train.cores import roam
from hpc_train.data.agenda import Agenda, Task
from hpc_train.data.cache import Key
from hpc_train.data.read import Reader, Request
from hpc_train.plan import Work

T = TypeVar("T")
_LONG_SECONDS = 0.005  # between two batches, from which each one wakes a reader
# of the time between two batches: a reader that needs less for one does all of it, since to wake
# another one, and to take turns with it, costs more than it helps
_LITTLE = 0.25
_ADAPT = 0.2  # how fast the mean seconds of a task follow


class Lookup(Protocol):
    """Where the samples of a work are, and which blocks to fetch for them."""

    def __call__(self, work: Work) -> tuple[Request, list[Key]]: ...


class Ahead(Generic[T]):
    """Threads that make a batch of every work of a forecast, in order; until `stop`.

    Args:
        reader: fetches blocks; its cache is the budget.
        works: the forecast.
        look_up, gather: how a work becomes a request, and a request a batch.
        depth: how many batches are made before they are taken.
        num_threads: how many threads fetch and gather.
    """

    def __init__(
        self,
        reader: Reader,
        works: Iterator[Work],
        look_up: Lookup,
        gather: Callable[[Request], T],
        *,
        depth: int,
        num_threads: int,
    ) -> None:
        self._reader = reader
        self._forecast = works
        self._look_up = look_up
        self._gather = gather
        self._depth = depth
        self._few = max(depth - 2, depth // 2)
        self._taken_at = self._interval = 0.0  # when the last batch was taken, and how long after
        self._seconds = {"gather": 0.0, "look up": 0.0}  # means of what each batch needs
        cache = reader.cache
        self._agenda = Agenda(depth, cache.has_room, cache.is_wanted, reader.block_bytes)
        self._changed = threading.Condition(reader.lock)  # there may be a task
        self._arrived = threading.Condition(reader.lock)  # what the trainer waits for may be there
        self._works: dict[int, Work] = {}
        self._requests: dict[int, Request | Exception] = {}
        self._ready: dict[int, T | Exception] = {}
        self._number = 0  # of the work that is taken next
        self._is_stopped = False
        self._threads = [
            threading.Thread(target=self._run, name="hpc_train-reader", daemon=True)
            for _ in range(num_threads)
        ]
        for thread in self._threads:
            thread.start()

    def take(self, work: Work) -> T | None:
        """The batch of `work` if it is next in the forecast, else None, for good.

        Raises:
            Exception: what kept a thread from making it.
        """
        number = self._number
        batch = self._ready.get(number)
        if batch is None or isinstance(batch, Exception) or self._works[number] != work:
            return self._wait_for(number, work)
        # the usual case goes without the lock: whoever asked for it would often wait for a reader
        # to be given a core. Only this thread removes batches and counts them
        del self._ready[number], self._works[number]
        self._number += 1
        self._agenda.taken()
        # waking a reader takes longer than all else here: once for two batches will do. Long steps
        # do not feel it, but those in which a rank short of cores gathers two batches
        now = time.perf_counter()
        self._interval, self._taken_at = now - self._taken_at, now
        few = self._few if self._interval < _LONG_SECONDS else self._depth
        if len(self._ready) <= few and self._changed.acquire(blocking=False):
            self._changed.notify()
            self._changed.release()
        # else a reader has the lock, and looks for the next task; if it had looked before, and
        # goes to sleep, the next batch taken wakes it, at the latest one that is waited for
        return batch

    def _wait_for(self, number: int, work: Work) -> T | None:
        """The batch if it is, or will be, that of `work`, else None."""
        with self._changed:
            self._interval = 0.0  # readers are late
            self._changed.notify_all()
            while not self._is_stopped and not self._is_known_to_differ(number, work):
                if number in self._ready:
                    break
                self._arrived.wait()
            batch = self._ready.pop(number, None)
            if batch is not None and self._works.pop(number) == work:
                self._number += 1
                self._agenda.taken()
                self._changed.notify()
            else:
                batch = None
        if batch is None or isinstance(batch, Exception):
            self.stop()
        if isinstance(batch, Exception):
            raise batch
        return batch

    def stop(self) -> None:
        """Join the threads; what they have read stays in the cache."""
        with self._changed:
            if self._is_stopped:
                return
            self._is_stopped = True
            self._changed.notify_all()
            self._arrived.notify_all()
        for thread in self._threads:
            thread.join()
        with self._changed:
            for blocks in self._agenda.open_needs():
                self._reader.cache.unwant(blocks)

    def _is_known_to_differ(self, number: int, work: Work) -> bool:
        """Whether the forecast says otherwise, or has ended."""
        return self._agenda.is_over(number) or self._works.get(number, work) != work

    def _run(self) -> None:
        roam()
        while True:
            with self._changed:
                task = self._agenda.next()
                while task is None and not self._is_stopped:
                    self._changed.wait()
                    task = self._agenda.next()
                if self._is_stopped or task is None:
                    return
                if task.kind == "fetch":
                    self._changed.notify()  # storage takes its time
                else:
                    self._share()
            self._act(task)

    def _share(self) -> None:
        """Wake another reader, since there may be more to do than one of them can; holds the lock.

        None is needed where this one has enough time: it looks for the next task in any case.
        """
        needed = sum(self._seconds.values())
        if self._interval < _LONG_SECONDS or needed > _LITTLE * self._interval:
            self._changed.notify()

    def _act(self, task: Task) -> None:
        started = time.perf_counter()
        self._do(task)
        if task.kind in self._seconds:
            taken = time.perf_counter() - started
            self._seconds[task.kind] += _ADAPT * (taken - self._seconds[task.kind])

    def _do(self, task: Task) -> None:
        if task.kind == "fetch":
            self._fetch(task.key)
        elif task.kind == "gather":
            self._make(task.number)
        else:
            self._foresee(task.number)

    def _fetch(self, key: Key) -> None:
        # an error is found again, and told, where a batch needs the block
        with contextlib.suppress(Exception):
            self._reader.fetch(key)
        with self._changed:
            self._agenda.fetched(key)
            self._changed.notify()

    def _make(self, number: int) -> None:
        with self._changed:
            request = self._requests.pop(number)
        try:
            if isinstance(request, Exception):
                raise request
            batch: T | Exception = self._gather(request)
        except Exception as error:
            batch = error
        with self._changed:
            self._reader.cache.unwant(self._agenda.gathered(number))
            self._ready[number] = batch  # from now on it may be taken
            self._share()
            if number == self._number:
                self._arrived.notify_all()

    def _foresee(self, number: int) -> None:
        """Look up the next work of the forecast; what goes wrong arrives where it is taken."""
        work: Work | None = None
        blocks: list[Key] = []
        try:
            work = next(self._forecast, None)
            if work is not None:
                request, blocks = self._look_up(work)
        except Exception as error:
            failure: Exception | None = error
        else:
            failure = None
        with self._changed:
            if work is not None:
                cache = self._reader.cache
                self._works[number] = work
                self._requests[number] = failure or request
                cache.want(blocks)
                missing = [key for key in blocks if key not in cache]
                self._agenda.looked_up(blocks, missing, work.reads)
            if work is None or failure:
                self._agenda.exhausted()
            self._share()
            if number == self._number or work is None or failure:
                self._arrived.notify_all()
