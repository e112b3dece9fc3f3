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

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hpc_train.errors import CheckpointError

logger = logging.getLogger(__name__)

VERSION = 1
_PIECE = 2**22
_OLD = ".old"


@dataclass(frozen=True)
class Manifest:
    """What a set holds: the step, what the trainer noted (JSON), and file name -> (size, hash)."""

    step: int
    notes: dict[str, Any]
    parts: dict[str, tuple[int, str]]


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
    """

    def __init__(self, folder: Path, keep_last: int = 2) -> None:
        self.folder = folder
        self._keep_last = keep_last

    def path(self, step: int) -> Path:
        """The folder of the set of `step`."""
        return self.folder / f"step-{step:08d}"

    def save(
        self, step: int, tensors: Mapping[str, torch.Tensor], notes: Mapping[str, Any]
    ) -> Path:
        """Write a set; it is there completely when this returns, or not at all.

        Raises:
            CheckpointError: if it cannot be written; older sets are as they were.
        """
        final = self.path(step)
        draft = self.folder / f".tmp-{final.name}-{uuid.uuid4().hex[:8]}"
        try:
            draft.mkdir(parents=True)
            part = draft / "part-000.safetensors"
            save_file({name: _copy(tensor) for name, tensor in tensors.items()}, part)
            _sync(part)
            document = {
                "format": "hpc_train checkpoint",
                "format_version": VERSION,
                "step": step,
                "notes": dict(notes),
                "parts": [
                    {"file": part.name, "bytes": part.stat().st_size, "sha256": _sha256(part)}
                ],
            }
            manifest = draft / "manifest.json"
            manifest.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
            _sync(manifest)
            _sync(draft)
            _put(draft, final)
            _sync(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise CheckpointError(
                f"cannot save a checkpoint: {getattr(error, 'strerror', None) or error}",
                where=str(final),
                hint="free space there, or choose another place with run.dir=PATH",
            ) from error
        self._prune(step)
        return final

    def steps(self) -> list[int]:
        """The steps of all sets, ascending, valid or not."""
        found = set()
        for path in self.folder.glob("step-*"):
            number = path.name.removeprefix("step-").removesuffix(_OLD)
            if number.isdigit():
                found.add(int(number))
        return sorted(found)

    def newest(self) -> Saved:
        """The newest valid set; those that are damaged are named in the log and passed over.

        Raises:
            CheckpointError: if there is no valid one.
        """
        paths = [p for step in reversed(self.steps()) for p in _both(self.path(step))]
        for path in filter(Path.exists, paths):
            try:
                return self.load(path)
            except CheckpointError as error:
                logger.warning("passing over a damaged checkpoint: %s", error.lines()[0])
        raise CheckpointError(
            "no valid checkpoint to resume from", where=str(self.folder), hint="start a new run"
        )

    def load(self, path: Path) -> Saved:
        """The set in `path`, verified.

        Raises:
            CheckpointError: if it is incomplete, damaged, or of another format version.
        """
        manifest = _read_manifest(path / "manifest.json")
        tensors: dict[str, torch.Tensor] = {}
        for name, (size, digest) in manifest.parts.items():
            part = path / name
            try:
                if part.stat().st_size != size or _sha256(part) != digest:
                    raise CheckpointError("part differs from its manifest", where=str(part))
                tensors.update(load_file(part))
            except OSError as error:
                raise CheckpointError(f"cannot read: {error.strerror}", where=str(part)) from error
            except SafetensorError as error:
                raise CheckpointError(f"damaged: {error}", where=str(part)) from error
        return Saved(path, manifest, tensors)

    def _prune(self, step: int) -> None:
        """Remove all but the newest `keep_last` sets up to `step`, and what a killed run left.

        Sets beyond `step` are damaged ones that a resumed run passed over.
        """
        steps = self.steps()
        kept = [other for other in steps if other <= step][-self._keep_last :]
        for other in steps:
            current, old = _both(self.path(other))
            for path in [old] if other in kept else [current, old]:
                shutil.rmtree(path, ignore_errors=True)
        for draft in self.folder.glob(".tmp-step-*"):
            shutil.rmtree(draft, ignore_errors=True)


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


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the host: tied and transposed tensors can be written, too."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _read_manifest(path: Path) -> Manifest:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        version = document["format_version"]
        if version != VERSION:
            raise CheckpointError(
                f"checkpoint must be of format version {VERSION} (format_version: {version})",
                where=str(path),
            )
        parts = {
            Path(part["file"]).name: (int(part["bytes"]), str(part["sha256"]))
            for part in document["parts"]
        }
        return Manifest(int(document["step"]), dict(document["notes"]), parts)
    except OSError as error:
        raise CheckpointError(f"incomplete: {error.strerror}", where=str(path)) from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"damaged manifest: {error!r}", where=str(path)) from error


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Have the file or folder reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
