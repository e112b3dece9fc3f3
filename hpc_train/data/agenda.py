"""What readers do next, decided purely: which work to look up, block to fetch, batch to gather.

    works    foretold  -->  looked up  -->  gathered  -->  taken         each in the order of use
                              |               ^
    blocks                    +--> queue --> fetched                     in the order of first use

Rules, the first that applies:

1. Gather the next batch, if not more than `depth` are gathered and untaken, and none of its blocks
   is on its way; also when they cannot be fetched for lack of room that no other batch will free.
2. Fetch the next block of the queue, if it fits beside the blocks that are wanted.
3. Look up the next work, if the queue is empty and it is not too far ahead of what was taken; as
   long as all blocks were in memory, five for four batches taken: a new forecast shall not cost a
   training that is short of cores a hundred look-ups at once.
4. Wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from hpc_train.data.cache import Key

HORIZON_SAMPLES = 2**16  # looked up ahead: the ids of so many take 512 KiB
HORIZON_WORKS = 1024
_IDLE_PER_TAKEN = 1.25  # look-ups for each batch taken, as long as none found a block to fetch


@dataclass(frozen=True)
class Task:
    """What a reader shall do: with the batch `number`, or with the block `key`."""

    kind: Literal["look up", "fetch", "gather"]
    number: int = -1
    key: Key = (-1, -1)


class Agenda:
    """The state of reading ahead, without threads, clock or files.

    Args:
        depth: how many batches may be gathered and untaken, >= 1.
        has_room: whether so many bytes fit beside the blocks that are wanted.
        is_wanted: whether a block has uses to come.
        size: bytes of a block.
    """

    def __init__(
        self,
        depth: int,
        has_room: Callable[[int], bool],
        is_wanted: Callable[[Key], bool],
        size: Callable[[Key], int],
    ) -> None:
        self._depth = depth
        self._has_room = has_room
        self._is_wanted = is_wanted
        self._size = size
        self._queue: deque[Key] = deque()
        self._fetching: dict[Key, int] = {}  # bytes of each block on its way
        self._needs: dict[int, tuple[frozenset[Key], int]] = {}  # of works looked up: blocks, ids
        self._making: set[int] = set()  # batches that are being gathered
        self._is_looking = False
        self._is_exhausted = False
        self._samples = 0  # looked up, not gathered
        self._in_memory = True  # whether no block had to be fetched so far
        self._idle = 0.0  # look-ups ahead that are left until a batch is taken, in that case
        self._looked_up = self._gathering = self._taken = 0  # numbers of works

    def next(self) -> Task | None:
        """The next task, which from now on counts as begun; None to wait."""
        while self._queue and not self._is_wanted(self._queue[0]):
            self._queue.popleft()  # its batch did not wait for it
        number = self._gathering
        if number < self._looked_up and number - self._taken < self._depth and self._is_due(number):
            self._gathering += 1
            self._making.add(number)
            return Task("gather", number)
        if self._queue and self._fits(self._queue[0]):
            key = self._queue.popleft()
            self._fetching[key] = self._size(key)
            return Task("fetch", key=key)
        if self._may_look_up():
            self._is_looking = True
            return Task("look up", self._looked_up)
        return None

    def looked_up(self, blocks: Iterable[Key], missing: Iterable[Key], samples: int) -> None:
        """A work was looked up: it needs `blocks`, of which `missing` are not in memory."""
        self._needs[self._looked_up] = frozenset(blocks), samples
        missing = list(missing)
        self._in_memory = self._in_memory and not missing
        if self._looked_up - self._taken > self._depth:
            self._idle -= 1
        queued = set(self._queue)
        self._queue.extend(
            key for key in missing if key not in self._fetching and key not in queued
        )
        self._samples += samples
        self._looked_up += 1
        self._is_looking = False

    def exhausted(self) -> None:
        """No further work is foretold."""
        self._is_exhausted, self._is_looking = True, False

    def fetched(self, key: Key) -> None:
        """A block was fetched, or could not be: gathering will find out."""
        del self._fetching[key]

    def gathered(self, number: int) -> frozenset[Key]:
        """A batch was gathered; gives the blocks that it needed."""
        blocks, samples = self._needs.pop(number)
        self._samples -= samples
        self._making.discard(number)
        return blocks

    def taken(self) -> None:
        """The trainer has taken a batch."""
        self._taken += 1
        self._idle = min(self._idle, 1.0) + _IDLE_PER_TAKEN

    def is_over(self, number: int) -> bool:
        """Whether the work `number` will never be looked up, since no more are foretold."""
        return self._is_exhausted and number >= self._looked_up

    def open_needs(self) -> list[frozenset[Key]]:
        """The blocks of each work that was looked up and not gathered."""
        return [blocks for blocks, _ in self._needs.values()]

    def _is_due(self, number: int) -> bool:
        """Whether waiting longer would bring no more of its blocks."""
        blocks, _ = self._needs[number]
        if not blocks.isdisjoint(self._fetching):
            return False
        if blocks.isdisjoint(self._queue):
            return True
        if self._fetching or self._fits(self._queue[0]):
            return False
        # batches of an earlier window may make room; those that use the same blocks cannot
        return not any(blocks.isdisjoint(self._needs[other][0]) for other in self._making)

    def _fits(self, key: Key) -> bool:
        return self._has_room(sum(self._fetching.values()) + self._size(key))

    def _may_look_up(self) -> bool:
        """One work at a time; always as far as batches may be gathered, and some way beyond."""
        if self._is_looking or self._is_exhausted or self._queue:
            return False
        ahead = self._looked_up - self._taken
        if ahead <= self._depth:
            return True
        if self._in_memory and self._idle < 1:
            return False
        return ahead < HORIZON_WORKS and self._samples < HORIZON_SAMPLES
