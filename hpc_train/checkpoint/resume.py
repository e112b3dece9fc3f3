"""Loading on several ranks: each verifies a part of the set, all of them take it or none."""

from __future__ import annotations

from pathlib import Path

from hpc_train.checkpoint.store import Saved, Store
from hpc_train.errors import CheckpointError
from hpc_train.world import Group, agree, on_coordinator


def newest(store: Store, group: Group) -> Saved:
    """The newest set that all ranks together find valid, on every rank.

    A damaged one is named in the log of rank 0, and passed over by all.

    Raises:
        RankError: on every rank, if there is no valid one.
    """
    rank, size = group.world.rank, group.world.size
    for name in on_coordinator(group, lambda: [str(path) for path in store.candidates()]):
        saved, error = _load(store, Path(name), rank, size)
        problems = [line for line in group.gather(error.lines()[0] if error else None) if line]
        if saved is not None and not problems:
            return saved
        if group.world.is_coordinator:
            store.pass_over(CheckpointError(problems[0]))
    agree(group, store.nothing() if group.world.is_coordinator else None)
    raise AssertionError("rank 0 had an error")


def _load(
    store: Store, path: Path, rank: int, size: int
) -> tuple[Saved, None] | tuple[None, CheckpointError]:
    try:
        return store.load(path, rank, size), None
    except CheckpointError as error:
        return None, error
