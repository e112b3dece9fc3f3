"""The store of checkpoints in a run directory.

    checkpoints/.tmp-step-00001200-1f3a/     1 parts are written, and fsynced
        part-000.safetensors
        manifest.json                        2 the manifest last: sizes and hashes of the parts
    checkpoints/step-00001200/               3 renamed, and the folder fsynced

A set without a manifest, or whose parts differ from it, is not valid; the newest valid one wins.
A set of the same step is moved to `step-00001200.old` before 3, and removed after it, so that one
of the two is there at any moment.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from hpc_train.checkpoint import layout
from hpc_train.checkpoint.keep import Best, kept
from hpc_train.checkpoint.layout import Part
from hpc_train.errors import CheckpointError
from hpc_train.record import phase

logger = logging.getLogger(__name__)

VERSION = 1
MANIFEST = "manifest.json"
_OLD = ".old"
_OWN_CRC = "manifest_crc32"


@dataclass(frozen=True)
class Manifest:
    """What a set holds: the step, what the trainer noted (JSON), and its parts."""

    step: int
    notes: dict[str, Any]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Saved:
    """A set that was read: its folder, manifest and tensors by name."""

    path: Path
    manifest: Manifest
    tensors: dict[str, torch.Tensor]


class Store:
    """The checkpoints of one run.

    Args:
        folder: where they lie; made when the first one is saved.
        keep_last: how many sets are kept, >= 1.
        best: which set is kept beside the last ones; None for no other.
    """

    def __init__(self, folder: Path, keep_last: int = 2, best: Best | None = None) -> None:
        self.folder = folder
        self._keep_last = keep_last
        self._best = best

    def path(self, step: int) -> Path:
        """The folder of the set of `step`."""
        return self.folder / f"step-{step:08d}"

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]
    ) -> Path:
        """Write a set of one part; it is there completely when this returns, or not at all.

        Raises:
            CheckpointError: if it cannot be written; older sets are as they were.
        """
        draft = self.begin(step)
        try:
            part = self.write_part(draft, 0, tensors)
            return self.publish(draft, step, notes, [part])
        except CheckpointError:
            self.discard(draft)
            raise

    def begin(self, step: int) -> Path:
        """Make a draft of the set of `step`: a folder that nobody takes for a set.

        Raises:
            CheckpointError: if it cannot be made.
        """
        final = self.path(step)
        draft = self.folder / f".tmp-{final.name}-{uuid.uuid4().hex[:8]}"
        with _writing(final):
            draft.mkdir(parents=True)
        return draft

    def write_part(self, draft: Path, number: int, tensors: Mapping[str, torch.Tensor]) -> Part:
        """Write one part of a draft; several ranks may do so at once.

        Raises:
            CheckpointError: if it cannot be written.
        """
        with _writing(draft), phase("checkpoint", operation="write"):
            return layout.write(draft / f"part-{number:03d}.safetensors", tensors)

    def publish(
        self, draft: Path, step: int, notes: Mapping[str, Any], parts: Sequence[Part]
    ) -> Path:
        """Make a set of a draft whose parts are all there, and remove what is not kept.

        Raises:
            CheckpointError: if the manifest cannot be written; older sets are as they were.
        """
        final = self.path(step)
        with _writing(final):
            _write_manifest(draft / MANIFEST, Manifest(step, dict(notes), tuple(parts)))
            _sync(draft)
            _put(draft, final)
            _sync(self.folder)
        self._prune(step)
        return final

    def discard(self, draft: Path) -> None:
        """Remove a draft that will be no set."""
        shutil.rmtree(draft, ignore_errors=True)

    def steps(self) -> list[int]:
        """The steps of all sets, ascending, valid or not."""
        found = set()
        for path in self.folder.glob("step-*"):
            number = path.name.removeprefix("step-").removesuffix(_OLD)
            if number.isdigit():
                found.add(int(number))
        return sorted(found)

    def candidates(self) -> list[Path]:
        """The folders of all sets, the newest first, valid or not."""
        paths = [p for step in reversed(self.steps()) for p in _both(self.path(step))]
        return [path for path in paths if path.exists()]

    def newest(self) -> Saved:
        """The newest valid set; those that are damaged are named in the log and passed over.

        Raises:
            CheckpointError: if there is no valid one.
        """
        for path in self.candidates():
            try:
                return self.load(path)
            except CheckpointError as error:
                self.pass_over(error)
        raise self.nothing()

    def choose(self, which: str) -> Saved:
        """The set that a user names: "last", the newest valid one; "best"; or "step-N".

        Raises:
            CheckpointError: if there is no such set, or it is damaged.
        """
        if which == "last":
            return self.newest()
        if which == "best":
            return self.load(self.path(self._best_step()))
        number = which.removeprefix("step-")
        there = ", ".join(f"step-{step}" for step in self.steps()) or "none"
        if not number.isdigit() or not which.startswith("step-"):
            raise CheckpointError(
                f'a checkpoint must be "last", "best" or "step-N" ("{which}")',
                hint=f"kept are: {there}",
            )
        path = self.path(int(number))
        if not path.exists():
            raise CheckpointError(
                f"no checkpoint of step {int(number)}",
                where=str(self.folder),
                hint=f"kept: {there}",
            )
        return self.load(path)

    def _best_step(self) -> int:
        """The step of the first of the best sets."""
        found: int | None = None
        for step in self.steps() if self._best is not None else []:
            value = self._value(step)
            best = None if found is None else self._value(found)
            if self._best is not None and self._best.beats(value, best):
                found = step
        if found is None:
            raise CheckpointError(
                "no checkpoint tells how good it is",
                where=str(self.folder),
                hint='train with checkpoint.keep_best = "max METRIC", or take the last one',
            )
        return found

    def load(self, path: Path, reader: int = 0, num_readers: int = 1) -> Saved:
        """The set in `path`, verified.

        Args:
            reader, num_readers: which of how many readers this is: each verifies its pieces, and
                only all of them together have verified the set.

        Raises:
            CheckpointError: if it is incomplete, damaged, or of another format version.
        """
        manifest = read_manifest(path)
        tensors: dict[str, torch.Tensor] = {}
        before = 0
        for part in manifest.parts:
            first = (reader - before) % num_readers
            before += part.num_pieces
            try:
                layout.check(path, part, range(first, part.num_pieces, num_readers))
                tensors.update(load_file(path / part.file))
            except OSError as error:
                where = str(path / part.file)
                raise CheckpointError(f"cannot read: {error.strerror}", where=where) from error
            except SafetensorError as error:
                raise CheckpointError(f"damaged: {error}", where=str(path / part.file)) from error
        return Saved(path, manifest, tensors)

    def pass_over(self, error: CheckpointError) -> None:
        """Name a damaged set in the log."""
        logger.warning("passing over a damaged checkpoint: %s", error.lines()[0])

    def nothing(self) -> CheckpointError:
        """The error of a run without a valid set."""
        return CheckpointError(
            "no valid checkpoint to resume from", where=str(self.folder), hint="start a new run"
        )

    def _prune(self, step: int) -> None:
        """Remove all sets up to `step` but those that are kept, and what a killed run left.

        Sets beyond `step` are damaged ones that a resumed run passed over.
        """
        steps = self.steps()
        values = {other: self._value(other) for other in steps if other <= step}
        keep = kept(values, self._keep_last, self._best)
        for other in steps:
            current, old = _both(self.path(other))
            for path in [old] if other in keep else [current, old]:
                shutil.rmtree(path, ignore_errors=True)
        for draft in self.folder.glob(".tmp-step-*"):
            shutil.rmtree(draft, ignore_errors=True)

    def best_value(self) -> float | None:
        """The best value of the metric among the sets; None without one."""
        if self._best is None:
            return None
        found: float | None = None
        for step in self.steps():
            value = self._value(step)
            if self._best.beats(value, found):
                found = value
        return found

    def _value(self, step: int) -> float | None:
        """The metric that the manifest of a set tells; None if it tells none."""
        if self._best is None:
            return None
        try:
            return self._best.value(read_manifest(self.path(step)).notes)
        except CheckpointError:
            return None


def _both(path: Path) -> tuple[Path, Path]:
    """A set, and where the earlier one of the same step lies while it is replaced."""
    return path, path.with_name(path.name + _OLD)


def _put(draft: Path, final: Path) -> None:
    """Rename `draft` to `final`; an earlier set of that name is there until then."""
    _, old = _both(final)
    if not final.exists():
        draft.rename(final)
        return
    shutil.rmtree(old, ignore_errors=True)
    final.rename(old)
    try:
        draft.rename(final)
    except OSError:
        old.rename(final)
        raise


@contextmanager
def _writing(final: Path) -> Iterator[None]:
    """Turn what the file system refuses into an error that names the set."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"cannot save a checkpoint: {error.strerror or error}",
            where=str(final),
            hint="free space there, or choose another place with run.dir=PATH",
        ) from error


def _write_manifest(path: Path, manifest: Manifest) -> None:
    document: dict[str, Any] = {
        "format": "hpc_train checkpoint",
        "format_version": VERSION,
        "step": manifest.step,
        "notes": manifest.notes,
        "parts": [
            {
                "file": part.file,
                "bytes": part.size,
                "sha256": part.sha256,
                "piece_bytes": part.piece_bytes,
                "crc32": list(part.crc32),
            }
            for part in manifest.parts
        ],
    }
    document[_OWN_CRC] = _own_crc(document)
    path.write_text(json.dumps(document) + "\n", encoding="utf-8")
    _sync(path)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the set in `folder`.

    Raises:
        CheckpointError: if there is none, or it is damaged or of another format version.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["format_version"]
        if version != VERSION:
            raise CheckpointError(
                f"checkpoint must be of format version {VERSION} (format_version: {version})",
                where=str(path),
            )
        if document.get(_OWN_CRC, _own_crc(document)) != _own_crc(document):
            raise ValueError("its checksum differs")
        parts = tuple(_part(entry) for entry in document["parts"])
        return Manifest(int(document["step"]), dict(document["notes"]), parts)
    except OSError as error:
        raise CheckpointError(f"incomplete: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"damaged manifest: {error!r}", where=str(path)) from error


def _own_crc(document: dict[str, Any]) -> int:
    """The CRC-32 of what a manifest says, however it is written; the first sets had none."""
    said = {key: value for key, value in document.items() if key != _OWN_CRC}
    text = json.dumps(json.loads(json.dumps(said)), sort_keys=True)
    return zlib.crc32(text.encode())


def _part(entry: dict[str, Any]) -> Part:
    """A part of a manifest; the first sets had no CRCs."""
    part = Part(
        Path(entry["file"]).name,
        int(entry["bytes"]),
        str(entry["sha256"]),
        int(entry.get("piece_bytes", 0)),
        tuple(int(crc) for crc in entry.get("crc32", [])),
    )
    if part.piece_bytes and len(part.crc32) != -(-part.size // part.piece_bytes):
        raise ValueError(f"{part.file} has {len(part.crc32)} checksums")
    return part


def _sync(path: Path) -> None:
    """Have the file or folder reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
