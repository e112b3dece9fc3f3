"""Routes: ways of reading a dataset of a shard, all giving the same bytes, chosen by its storage.

    route        storage                                    how                          costs
    contiguous   one piece, allocated                       memory map, no blocks        ~1 us a row
    chunked      whole samples per chunk, no filters        views of the memory map      ~1 us a row
    decoded      gzip, lzf, ...; chunks that cut samples    pread, codecs outside locks  decoding
    plain        all else: big-endian, virtual, ...         h5py under its global lock   30-700 us

Each route says whether it can read a dataset; the first in the table that can is taken. No offset
is trusted that was not compared with the size of the file, and nothing is mapped that HDF5 would
have to convert.
"""

from __future__ import annotations

from collections.abc import Callable

from hpc_train.data.routes.chunked import Chunked
from hpc_train.data.routes.contiguous import Contiguous
from hpc_train.data.routes.decoded import Decoded
from hpc_train.data.routes.plain import Plain
from hpc_train.data.routes.route import Route, Rows, Source

__all__ = ["ROUTES", "Route", "Rows", "Source", "choose"]

# name -> the route for a source, or None if it cannot be read that way; fast ones first
ROUTES: dict[str, Callable[[Source], Route | None]] = {
    "contiguous": Contiguous.of,
    "chunked": Chunked.of,
    "decoded": Decoded.of,
    "plain": Plain.of,
}


def choose(source: Source) -> Route:
    """The fastest route that can read `source`.

    Raises:
        DataError: if its file is too short for what it says it holds.
    """
    return next(route for of in ROUTES.values() if (route := of(source)) is not None)
