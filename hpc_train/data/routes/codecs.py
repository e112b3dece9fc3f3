"""Decompressing chunks by libraries that let other threads run meanwhile.

    filter   a chunk as stored                                               decoded by
    gzip     a zlib stream                                                   isal, else zlib
    zstd     a Zstandard frame                                               numcodecs
    lz4      bytes, bytes of a block; blocks: bytes stored, LZ4 or as is     numcodecs
    blosc    a Blosc 1 buffer; bytes and bytes stored in its header          numcodecs
    lzf      an LZF stream                                                   h5py's own LibLZF

All numbers of lz4's head are big-endian, of blosc's little-endian. isal and numcodecs are the
extra `codecs`; what they need not be there for is read by zlib, or by HDF5 and its plugins. The
LZF decoder is the one that HDF5 itself would call, in h5py's library, without HDF5's lock around
it; where an h5py does not show it, HDF5 reads such chunks one at a time for all threads.
"""

from __future__ import annotations

import ctypes
import importlib
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import h5py
import numpy as np

# bytes as stored, and how many they become -> those; may raise any of `DECODE_ERRORS`
Codec = Callable[[bytes, int], Any]

OF_HDF5 = frozenset({"lzf"})  # HDF5 decodes by the same library: it need not be asked again
EXTRA = "codecs"  # the extra of the package that brings the libraries


class UndecodableError(ValueError):
    """A chunk is not what its filter promises."""


DECODE_ERRORS = (zlib.error, ValueError, RuntimeError, struct.error)


@cache
def find(name: str) -> Codec | None:
    """The codec of the HDF5 filter `name`; None if there is none, or its library is missing."""
    try:
        return _MAKERS[name]() if name in _MAKERS else None
    except ImportError:
        return None


def _gzip() -> Codec:
    try:
        inflate = importlib.import_module("isal.isal_zlib").decompress
    except ImportError:
        inflate = zlib.decompress

    def decode(stored: bytes, size: int) -> Any:
        try:
            return inflate(stored, bufsize=size)
        except Exception:  # isal has errors of its own: zlib decides whether it is one
            return zlib.decompress(stored, bufsize=size)

    return decode


def _zstd() -> Codec:
    inflate = importlib.import_module("numcodecs.zstd").decompress

    def decode(stored: bytes, size: int) -> Any:
        return inflate(stored)

    return decode


def _blosc() -> Codec:
    blosc: Any = importlib.import_module("numcodecs.blosc")
    blosc.use_threads = False  # the readers are threads already

    def decode(stored: bytes, size: int) -> Any:
        found, _, stored_size = struct.unpack_from("<III", stored, 4)
        if found != size or stored_size != len(stored):  # the library would trust these
            raise UndecodableError(f"a header of {found} bytes in place of {size}")
        return blosc.decompress(stored, np.empty(size, np.uint8))

    return decode


def _lz4() -> Codec:
    inflate = importlib.import_module("numcodecs.lz4").decompress

    def decode(stored: bytes, size: int) -> Any:
        """The filter's own format: size of all and of a block, then each block with its length."""
        whole, block = struct.unpack_from(">QI", stored)
        if whole != size or not 0 < block < 2**31:
            raise UndecodableError(f"a header of {whole} bytes in place of {size}")
        result, place = np.empty(size, np.uint8), 12
        for first in range(0, size, block):
            piece = result[first : first + block]
            (length,) = struct.unpack_from(">I", stored, place)
            raw = stored[place + 4 : place + 4 + length]
            place += 4 + length
            if length == len(piece):  # what LZ4 did not make smaller
                piece[:] = np.frombuffer(raw, np.uint8)
                continue
            # numcodecs puts the size before its blocks, in its own way
            if inflate(struct.pack("<I", len(piece)) + raw, piece) is not piece:
                raise UndecodableError("a block of another size")
        return result

    return decode


def _lzf() -> Codec:
    try:  # calls through ctypes let other threads run
        inflate = ctypes.CDLL(h5py.h5z.__file__).lzf_decompress
    except (OSError, AttributeError) as error:
        raise ImportError("lzf") from error
    inflate.argtypes = [ctypes.c_char_p, ctypes.c_uint, ctypes.c_void_p, ctypes.c_uint]
    inflate.restype = ctypes.c_uint

    def decode(stored: bytes, size: int) -> Any:
        result = np.empty(size, np.uint8)
        found = inflate(stored, len(stored), result.ctypes.data, size)
        if found != size:  # 0 where the stream is damaged
            raise UndecodableError(f"{found} bytes in place of {size}")
        return result

    return decode


_MAKERS: dict[str, Callable[[], Codec]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "lz4": _lz4,
    "blosc": _blosc,
    "lzf": _lzf,
}
