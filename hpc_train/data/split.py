"""Splitting a data set into train, validation and test: who goes where, and the writing of it.

samples in a random order, or by (label, random order), or as they lie
sample  0 1 2 3 4 5 6 7 8 9       shares 6 : 2 : 2
part    . . . . . . . . . .       random and sequential: 0 0 0 0 0 0 1 1 2 2
                                  stratified: dealt evenly along the row, 0 0 1 0 2 0 0 1 0 2,
                                  so that every label gets its shares, up to one sample
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpc_train.data.index import FieldInfo, Index
from hpc_train.data.layout import plan_layout
from hpc_train.data.order.permutation import Permutation
from hpc_train.data.sources.source import Source
from hpc_train.data.writer import ShardWriter
from hpc_train.errors import UsageError, unknown

PARTS = ("train", "validation", "test")
_SPLIT = 33  # Philox stream
_ROWS = 4096

Assignment = NDArray[np.uint8]  # number of the part of each sample, (num_samples,)


def count_samples(num_samples: int, shares: Mapping[str, float]) -> dict[str, int]:
    """How many samples each part gets.

    Args:
        num_samples: >= 1.
        shares: by part; all fractions (float) with the sum 1, or all counts (int) with the sum
            `num_samples`.

    Raises:
        UsageError: if the shares are anything else, or a part would get nothing.
    """
    told = ", ".join(f"{part}: {share}" for part, share in shares.items())
    if not shares or min(shares.values()) <= 0:
        raise UsageError(f"shares must be positive ({told or 'none'})")
    if all(isinstance(share, int) for share in shares.values()):
        if sum(shares.values()) != num_samples:
            raise UsageError(f"counts must sum up to the {num_samples} samples there are ({told})")
        return {part: int(share) for part, share in shares.items()}
    if any(isinstance(share, int) for share in shares.values()):
        raise UsageError(f"shares must be all fractions or all counts ({told})")
    if abs(sum(shares.values()) - 1) > 1e-6:
        raise UsageError(f"fractions must sum up to 1 ({told})")
    edges = np.rint(np.cumsum([0.0, *shares.values()]) * num_samples).astype(int)
    counts = dict(zip(shares, np.diff(edges).tolist(), strict=True))
    for part, count in counts.items():
        if count == 0:
            raise UsageError(f"{part} would get none of the {num_samples} samples ({told})")
    return counts


def assign(
    counts: Mapping[str, int],
    seed: int,
    *,
    sequential: bool = False,
    labels: NDArray[Any] | None = None,
) -> Assignment:
    """The number of the part (in the order of `counts`) that each sample goes to.

    Args:
        counts: samples of each part, as `count_samples` gives them.
        seed: 64 bits.
        sequential: as samples lie, without randomness.
        labels: shape (num_samples,): every label gets its shares, up to one sample.
    """
    sizes = list(counts.values())
    parts = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)
    if sequential:
        return parts
    rank = Permutation(len(parts), seed, _SPLIT, 0).forward(np.arange(len(parts)))
    if labels is None:
        return parts[rank]
    result = np.empty_like(parts)
    result[np.lexsort((rank, labels))] = _dealt(sizes)
    return result


def _dealt(sizes: list[int]) -> Assignment:
    """Parts in a row, each spread evenly: the first against the rest, then the rest likewise."""
    total = sum(sizes)
    if len(sizes) == 1:
        return np.zeros(total, np.uint8)
    place = np.arange(total + 1, dtype=np.int64)
    is_first = np.diff(place * sizes[0] // total) == 1
    row = np.zeros(total, np.uint8)
    row[~is_first] = _dealt(sizes[1:]) + 1
    return row


def labels_of(source: Source, field: str) -> NDArray[Any]:
    """All values of a scalar integer field, shape (num_samples,).

    Raises:
        UsageError: if there is no such field.
    """
    fields = source.fields()
    if field not in fields:
        raise UsageError(unknown("field", field, fields))
    info = fields[field]
    if info.shape != () or np.dtype(info.dtype).kind not in "iub":
        raise UsageError(
            f"a field to stratify by must hold one integer per sample ({field}: {info.dtype} "
            f"{info.shape})"
        )
    return np.concatenate([np.array(batch[field]) for batch in source.batches(_ROWS)])


def write_parts(
    source: Source,
    dest: Path,
    parts: list[str],
    assignment: Assignment,
    *,
    note: str = "",
    samples_per_shard: Mapping[str, int | None] | None = None,
    chunk_rows: int | None = None,
    compression: str = "none",
    overwrite: bool = False,
    told: Callable[[int], None] | None = None,
) -> dict[str, Index]:
    """Write each part of `source` as the data set DEST/PART, samples in the order of the source.

    Args:
        parts: names of the parts, by the numbers in `assignment`.
        note: is added to the source that the indices name.
        samples_per_shard: by part, in place of about 256 MiB.
        chunk_rows, compression: as for `plan_layout`.
        told: is called with the number of samples that were read so far.

    Raises:
        UsageError: if one of the destinations may not be replaced.
        DataError: if reading or writing fails; then no part is written.
    """
    fields: dict[str, FieldInfo] = source.fields()
    sizes = np.bincount(assignment, minlength=len(parts)).tolist()
    about = "; ".join(text for text in (source.source, note) if text)
    writers = []
    with ExitStack() as stack:
        for part, size in zip(parts, sizes, strict=True):
            per_shard = (samples_per_shard or {}).get(part)
            plan = plan_layout(
                fields,
                size,
                chunk_rows=chunk_rows,
                samples_per_shard=per_shard,
                compression=compression,
            )
            writer = ShardWriter(
                dest / part, fields, plan, source=about, licence=source.licence, overwrite=overwrite
            )
            writers.append(stack.enter_context(writer))
        _deal(source, assignment, writers, told)
    return {part: writer.index for part, writer in zip(parts, writers, strict=True)}


def _deal(
    source: Source,
    assignment: Assignment,
    writers: list[ShardWriter],
    told: Callable[[int], None] | None,
) -> None:
    """Give each sample to the writer of its part."""
    done = 0
    for batch in source.batches(_ROWS):
        count = len(next(iter(batch.values())))
        number = assignment[done : done + count]
        for part, writer in enumerate(writers):
            writer.append({name: array[number == part] for name, array in batch.items()})
        done += count
        if told:
            told(done)
