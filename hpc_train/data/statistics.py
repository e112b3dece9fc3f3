"""Mean and standard deviation of the channels of a field, found once and kept.

    field of a sample        channels, each with a mean and a standard deviation
    (channels, h, w, ...)    the first axis
    (values,)                each value
    (h, w), ()               all numbers together

Data sets that we write have them in their index. Of other files they are found when they are first
wanted, by reading all samples, and kept as `.<name>.hpc_train-statistics.json` beside them, as long
as names, sizes and modification times of all files are the same.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hpc_train.data.dataset import BUILTIN, Dataset, place_of
from hpc_train.data.moments import Moments, has_statistics
from hpc_train.data.read import Reader
from hpc_train.errors import DataError

logger = logging.getLogger(__name__)

_READ_BYTES = 16 * 2**20  # at once


def with_statistics(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """A data set whose fields `names` have mean and standard deviation, as far as they can.

    They are of all samples of its files, also where it is a range of them.

    Raises:
        DataError: if samples cannot be read, or are not finite.
    """
    fields = dataset.index.fields
    lacking = [n for n in names if has_statistics(fields[n]) and not fields[n].mean]
    if not lacking:
        return dataset
    kept = _kept(dataset)
    missing = [name for name in lacking if name not in kept]
    if missing:
        kept |= _measure(dataset, missing)
        _keep(dataset, kept)
    found = {
        name: replace(fields[name], mean=tuple(kept[name]["mean"]), std=tuple(kept[name]["std"]))
        for name in lacking
    }
    return replace(dataset, index=replace(dataset.index, fields={**fields, **found}))


def _measure(dataset: Dataset, names: Sequence[str]) -> dict[str, Any]:
    """Statistics of fields, by reading all samples."""
    whole = replace(dataset, start=0, stop=dataset.index.num_samples, windows=None)
    sample_bytes = sum(whole.fields[name].sample_bytes for name in names)
    logger.info(
        "%s: reading all %.1f MiB once for mean and standard deviation of %s",
        dataset.name,
        whole.num_samples * sample_bytes / 2**20,
        ", ".join(names),
    )
    moments = {name: Moments(whole.fields[name].shape) for name in names}
    step = max(1, _READ_BYTES // max(1, sample_bytes))
    reader = Reader(whole, names, _READ_BYTES)
    into = reader.buffers(min(step, whole.num_samples))
    try:
        for first in range(0, whole.num_samples, step):
            count = min(step, whole.num_samples - first)
            part = {name: array[:count] for name, array in into.items()}
            reader.read(np.arange(first, first + count), part)
            for name, values in part.items():
                moments[name].add(values)
    finally:
        reader.close()
    found = {}
    for name, of in moments.items():
        mean, std = of.result()
        if not mean:
            raise DataError(
                "data.normalize needs finite numbers",
                where=f"{dataset.name}, field {name}",
                hint="correct the data, or leave data.normalize out",
            )
        found[name] = {"mean": list(mean), "std": list(std)}
    return found


def _kept(dataset: Dataset) -> dict[str, Any]:
    """What was found earlier of the same files, by field."""
    try:
        document = json.loads(_place(dataset).read_text(encoding="utf-8"))
        fields = document["fields"] if document["files"] == _state(dataset) else {}
        return {name: entry for name, entry in fields.items() if _is_sound(entry, dataset, name)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # none there, or damaged: it is only a memory


def _is_sound(entry: Any, dataset: Dataset, name: str) -> bool:
    info = dataset.index.fields.get(name)
    if info is None:
        return True  # of a field that is not wanted now
    count = Moments(info.shape).channels
    lists = [entry["mean"], entry["std"]]
    return all(len(values) == count and all(map(math.isfinite, values)) for values in lists)


def _keep(dataset: Dataset, kept: dict[str, Any]) -> None:
    place = _place(dataset)
    if place.is_relative_to(BUILTIN):
        return
    temporary = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    try:
        document = {"files": _state(dataset), "fields": kept}
        temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        temporary.replace(place)
    except OSError:  # a read-only folder is no reason to fail
        logger.warning("%s: cannot be written, so all is read again next time", place)


def _place(dataset: Dataset) -> Path:
    place = Path(os.path.abspath(place_of(dataset.name)))
    name = f".{place.name}.hpc_train-statistics.json".replace("*", "+").replace("?", "+")
    return place.parent / name


def _state(dataset: Dataset) -> list[list[Any]]:
    files = [dataset.path(number) for number in range(len(dataset.index.shards))]
    stats = [file.stat() for file in files]
    return [[str(f), s.st_size, s.st_mtime_ns] for f, s in zip(files, stats, strict=True)]
