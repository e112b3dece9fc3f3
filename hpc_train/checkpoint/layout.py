"""A part: tensors in a file of the safetensors format, hashed while they are written.

    | n, 8 bytes, little endian | header, n bytes of JSON, blanks at its end | data of all tensors |

    header   {"name": {"dtype": "F32", "shape": [3, 4], "data_offsets": [start, stop]}, ...}

Data follow each other without gaps, those with the widest elements first, so that all are aligned.
The format is described at https://github.com/huggingface/safetensors. Writing it here takes one
pass over the memory, in place of a pass to write and another to hash.

Each part has two hashes: the SHA-256 of the file, which any tool can check, and the CRC-32 of each
piece of `PIECE_BYTES` of it, which are fast, and can be checked by several ranks at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from hpc_train.errors import CheckpointError

PIECE_BYTES = 2**22  # of the CRCs; a part of every manifest, so that it may change
_RUN_BYTES = 2**20  # read, hashed and written at a time: it stays in the cache

_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Part:
    """What the manifest says of a part.

    Attributes:
        file: its name in the folder of the set.
        size: in bytes.
        sha256: of the whole file, in hexadecimal.
        piece_bytes: the length of a piece, the last one may be shorter; 0 if there are no CRCs.
        crc32: of each piece.
    """

    file: str
    size: int
    sha256: str
    piece_bytes: int = 0
    crc32: tuple[int, ...] = ()

    @property
    def num_pieces(self) -> int:
        """How many pieces can be checked one by one; 1 if only the whole file can."""
        return len(self.crc32) if self.piece_bytes else 1


def write(path: Path, tensors: Mapping[str, torch.Tensor]) -> Part:
    """Write tensors of any strides and device to `path`, and have them reach the disk.

    Raises:
        OSError: if the file cannot be written.
        CheckpointError: if a tensor has a type that the format does not know.
    """
    names = order(tensors)
    digest, crcs = hashlib.sha256(), _Crcs()
    with path.open("wb", buffering=_RUN_BYTES) as file:
        for run in _runs(names, tensors):
            digest.update(run)
            crcs.update(run)
            file.write(run)
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    return Part(path.name, size, digest.hexdigest(), PIECE_BYTES, crcs.finish())


def check(folder: Path, part: Part, pieces: Iterable[int]) -> None:
    """Check some pieces of a part, which lies in `folder`.

    Args:
        pieces: their numbers, in [0, part.num_pieces).

    Raises:
        OSError: if the file cannot be read.
        CheckpointError: if it differs from what `part` says.
    """
    path = folder / part.file
    different = CheckpointError("part differs from its manifest", where=str(path))
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != part.size:
            raise different
        if not part.piece_bytes:
            if any(True for _ in pieces) and (
                hashlib.file_digest(file, "sha256").hexdigest() != part.sha256
            ):
                raise different
            return
        buffer = memoryview(bytearray(_RUN_BYTES))
        for number in pieces:
            start = number * part.piece_bytes
            stop = min(start + part.piece_bytes, part.size)
            if _crc32(file.fileno(), start, stop, buffer) != part.crc32[number]:
                raise different


def order(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names as their data lie in a file: widest elements first, then by name."""
    return sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))


def num_bytes(tensor: torch.Tensor) -> int:
    """The size of a tensor's data in a file."""
    return tensor.numel() * tensor.element_size()


def _header(names: list[str], tensors: Mapping[str, torch.Tensor]) -> bytes:
    entries: dict[str, object] = {}
    end = 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(
                f"tensors of type {tensor.dtype} cannot be saved (tensor: {name})"
            )
        start, end = end, end + num_bytes(tensor)
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _runs(names: list[str], tensors: Mapping[str, torch.Tensor]) -> Iterator[memoryview]:
    """The content of the file, a run at a time."""
    yield memoryview(_header(names, tensors))
    for name in names:
        flat = tensors[name].detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        for start in range(0, flat.size, _RUN_BYTES):
            yield flat[start : start + _RUN_BYTES].data


class _Crcs:
    """The CRC-32 of each piece of a stream."""

    def __init__(self) -> None:
        self._done: list[int] = []
        self._crc = 0
        self._filled = 0

    def update(self, run: memoryview) -> None:
        while len(run):
            taken = run[: PIECE_BYTES - self._filled]
            self._crc = zlib.crc32(taken, self._crc)
            self._filled += len(taken)
            run = run[len(taken) :]
            if self._filled == PIECE_BYTES:
                self._done.append(self._crc)
                self._crc = self._filled = 0

    def finish(self) -> tuple[int, ...]:
        return (*self._done, self._crc) if self._filled else tuple(self._done)


def _crc32(descriptor: int, start: int, stop: int, buffer: memoryview) -> int:
    """The CRC-32 of the bytes [start, stop) of a file; of fewer, if it has fewer."""
    crc = 0
    while start < stop:
        count = os.preadv(descriptor, [buffer[: stop - start]], start)
        if count == 0:
            break
        crc = zlib.crc32(buffer[:count], crc)
        start += count
    return crc
