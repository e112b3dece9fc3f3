"""Codecs: the bytes that HDF5's own filters give, outside its lock, and errors for damage."""

import importlib
import threading
import zlib

import h5py
import hdf5plugin
import numpy as np
import pytest

from hpc_train.data import hdf5, open_shards, read
from hpc_train.data.routes import codecs
from hpc_train.data.scan import scan
from hpc_train.errors import DataError
from tests.data.test_routes import attempt, gather, one_shard, route_of, values

FILTERS = {
    "gzip": {"compression": "gzip", "shuffle": True},
    "lzf": {"compression": "lzf"},
    "lzf+shuffle": {"compression": "lzf", "shuffle": True},
    "zstd": hdf5plugin.Zstd(),
    "zstd+shuffle": {**hdf5plugin.Zstd(clevel=1), "shuffle": True},
    "lz4": hdf5plugin.LZ4(),
    "lz4 in blocks": hdf5plugin.LZ4(nbytes=128),
    "lz4+shuffle": {**hdf5plugin.LZ4(nbytes=1024), "shuffle": True},
    "blosc": hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE),
    "blosc zstd": hdf5plugin.Blosc(cname="zstd", shuffle=hdf5plugin.Blosc.BITSHUFFLE),
}


@pytest.fixture(autouse=True)
def found_anew():
    codecs.find.cache_clear()
    yield
    codecs.find.cache_clear()


@pytest.fixture
def without(monkeypatch):
    """Takes libraries away."""

    def take_away(*names):
        real = importlib.import_module

        def missing(name, package=None):
            if name.split(".")[0] in names:
                raise ImportError(name)
            return real(name, package)

        monkeypatch.setattr(importlib, "import_module", missing)

    return take_away


def write(path, options, written, chunks):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=written, chunks=chunks, **options)
    return path


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["u1", "<f4", "<f8"])
def test_every_filter_gives_the_bytes_that_were_written(tmp_path, name, dtype):
    for number, (shape, chunks) in enumerate([((40, 37), (8, 37)), ((21, 9, 5), (4, 4, 5))]):
        written = values(dtype, shape, seed=number)
        path = write(tmp_path / f"{number}.h5", FILTERS[name], written, chunks)
        assert route_of(path) == "decoded"
        ids = np.random.default_rng(number).integers(0, shape[0], 30)
        assert np.array_equal(gather(one_shard(path), ids), written[ids])


def test_noise_that_no_filter_makes_smaller(tmp_path):
    written = np.random.default_rng(1).integers(0, 256, (30, 100), dtype=np.uint8)
    for name, options in FILTERS.items():
        path = write(tmp_path / f"{name}.h5", options, written, (7, 100))
        assert np.array_equal(gather(one_shard(path), range(30)), written)


def test_decoding_needs_no_lock_of_hdf5(tmp_path):
    written = values("<f4", (16, 500))
    for name, options in FILTERS.items():
        path = write(tmp_path / f"{name}.h5", options, written, (4, 500))
        dataset = one_shard(path)
        reader = read.Reader(dataset, ["x"], 0)
        into = reader.buffers(16)
        reader.read(np.arange(16), into)  # opens the file, which does need it
        into["x"][:] = -1
        with h5py._hl.base.phil:
            thread = threading.Thread(target=reader.read, args=(np.arange(16), into), daemon=True)
            thread.start()
            thread.join(60)
            assert not thread.is_alive(), name
        reader.close()
        assert np.array_equal(into["x"], written)


def test_zlib_takes_over_where_isal_is_missing_or_refuses(tmp_path, without):
    written = values("<f4", (40, 37))
    path = write(tmp_path / "x.h5", FILTERS["gzip"], written, (8, 37))
    decode = codecs.find("gzip")
    assert decode(zlib.compress(b"abc") + b"more", 3) == b"abc"
    with pytest.raises(zlib.error):
        decode(b"\x00" * 9, 3)
    without("isal")
    codecs.find.cache_clear()
    assert np.array_equal(gather(one_shard(path), range(40)), written)


def test_isal_is_what_decodes_where_it_is_there(monkeypatch):
    monkeypatch.setattr(zlib, "decompress", None)  # would fail
    assert codecs.find("gzip")(zlib.compress(b"abc" * 99), 297) == b"abc" * 99


def test_hdf5_takes_over_without_numcodecs(tmp_path, without):
    written = values("<f4", (40, 37))
    without("numcodecs")
    for name in ("zstd", "lz4", "blosc"):
        path = write(tmp_path / f"{name}.h5", FILTERS[name], written, (8, 37))
        assert route_of(path) == "plain"
        assert np.array_equal(gather(one_shard(path), range(40)), written)


def test_hdf5_takes_over_where_h5py_does_not_show_its_decoder(tmp_path, monkeypatch):
    written = values("<f4", (40, 37))
    path = write(tmp_path / "x.h5", FILTERS["lzf"], written, (8, 37))
    monkeypatch.setattr(codecs.ctypes, "CDLL", lambda path: object())
    assert route_of(path) == "plain"
    assert np.array_equal(gather(one_shard(path), range(40)), written)


def test_a_filter_that_nobody_has_is_an_error_that_names_the_extra(tmp_path, without, monkeypatch):
    path = write(tmp_path / "x.h5", FILTERS["zstd"], np.arange(40), (8,))
    dataset = one_shard(path)
    without("numcodecs", "hdf5plugin")
    monkeypatch.setattr(hdf5.h5py.h5z, "filter_avail", lambda number: number < 32000)
    for act in (lambda: gather(dataset, range(4)), lambda: scan([path], ["x"], 4)):
        with pytest.raises(DataError, match=r"not installed \(zstd\)") as caught:
            act()
        assert "hpc-train[codecs]" in caught.value.hint


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("lacks", [False, True])
def test_damage_is_an_error_or_changes_nothing_but_numbers(tmp_path, monkeypatch, name, lacks):
    """These filters have no checksum (blosc, lz4): no crash, and no rows of other lengths."""
    monkeypatch.setattr(open_shards, "_DELAYS", ())
    if lacks:  # as if HDF5 could not be asked
        monkeypatch.setattr("hpc_train.data.open_shard.lacking", lambda dataset: ["it"])
    written = values("<f4", (32, 40))
    path = write(tmp_path / "x.h5", FILTERS[name], written, (8, 40))
    dataset, content = one_shard(path), path.read_bytes()
    with h5py.File(path) as file:
        chunk = file["x"].id.get_chunk_info(0)
    generator, refused = np.random.default_rng(3), 0
    for _ in range(25):
        damaged = bytearray(content)
        # the heads are where decoders learn sizes
        place = chunk.byte_offset + int(generator.integers(min(40, chunk.size)))
        damaged[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        found, error = attempt(dataset, range(32), "x")
        refused += bool(error)
        assert "x.h5" in error or found.shape == written.shape
        assert error or np.array_equal(found[8:], written[8:])  # the other chunks are whole
    assert refused > 0
