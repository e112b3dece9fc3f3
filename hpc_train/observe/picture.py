"""Pictures of many samples: a grid of images as one PNG file, without any library.

PNG (ISO/IEC 15948): a signature, then chunks of length, type, data and CRC: IHDR, IDAT, IEND.
"""

from __future__ import annotations

import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # channels -> grey, RGB
_SIDE = 32  # images are enlarged until they have about so many pixels a side


def is_picture(shape: tuple[int, ...]) -> bool:
    """Whether samples of this shape, (channels, height, width), can be shown."""
    return len(shape) == 3 and shape[0] in _COLOUR_TYPES


def grid(images: NDArray[np.floating], gap: int = 2) -> NDArray[np.uint8]:
    """Images side by side in a square, each enlarged if it is small.

    Args:
        images: values in [0, 1], shape (n, channels, height, width), n >= 1, 1 or 3 channels.
        gap: white pixels between them.

    Returns:
        shape (height, width, channels).
    """
    count, channels, height, width = images.shape
    factor = max(1, _SIDE // max(height, width))
    pixels = (np.nan_to_num(images).clip(0, 1) * 255 + 0.5).astype(np.uint8)
    pixels = pixels.repeat(factor, 2).repeat(factor, 3).transpose(0, 2, 3, 1)
    columns = math.ceil(math.sqrt(count))
    rows = -(-count // columns)
    down, right = height * factor + gap, width * factor + gap
    whole = np.full((rows * down - gap, columns * right - gap, channels), 255, np.uint8)
    for place, image in enumerate(pixels):
        top, left = place // columns * down, place % columns * right
        whole[top : top + down - gap, left : left + right - gap] = image
    return whole


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write a picture, shape (height, width, 1 or 3), to `path`, atomically."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    lines = np.zeros((height, 1 + width * channels), np.uint8)  # each begins with "no filter"
    lines[:, 1:] = pixels.reshape(height, -1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    draft.write_bytes(_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks))
    draft.replace(path)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
