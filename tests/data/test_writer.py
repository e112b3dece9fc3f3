"""The writer: what goes in comes out, in the same bytes, all of it or nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.index import NAME, FieldInfo, Index
from hpc_train.data.layout import CHUNK_BYTES, SHARD_BYTES, Layout, plan_layout
from hpc_train.data.writer import ShardWriter
from hpc_train.errors import DataError, UsageError
from tests.data.samples import FIELDS, everything, read, sample_arrays, write

dtypes = st.sampled_from(["uint8", "bool", "int16", "int64", "uint64", "float16", "float64"])
shapes = st.lists(st.integers(1, 3), max_size=3).map(tuple)


@settings(max_examples=15, deadline=None)
@given(
    kinds=st.lists(st.tuples(dtypes, shapes), min_size=1, max_size=3),
    portions=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(any),
    chunk_rows=st.integers(1, 16),
    per_shard=st.integers(1, 40),
    compression=st.sampled_from(["none", "gzip", "lzf"]),
    seed=st.integers(0, 99),
)
def test_any_samples_in_any_portions_come_back(
    tmp_path_factory, kinds, portions, chunk_rows, per_shard, compression, seed
):
    folder = tmp_path_factory.mktemp("writer")
    count = sum(portions)
    rng = np.random.default_rng(seed)
    fields = {f"f{i}/x": FieldInfo(shape, dtype) for i, (dtype, shape) in enumerate(kinds)}
    arrays = {
        name: rng.integers(0, 2 if info.dtype == "bool" else 100, (count, *info.shape)).astype(
            info.dtype
        )
        for name, info in fields.items()
    }
    layout = Layout(chunk_rows, per_shard, compression)
    for name, sizes in (("a", portions), ("b", [count])):
        with ShardWriter(folder / name, fields, layout) as writer:
            first = 0
            for size in sizes:
                writer.append({n: a[first : first + size] for n, a in arrays.items()})
                first += size
                assert writer.num_samples == first
        assert writer.index == Index.read(folder / name)
    found = read(folder / "a")
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
    # lzf looks back through a table that it does not clear: its bytes vary, what they say does not
    if compression != "lzf":
        assert everything(folder / "a") == everything(folder / "b")
    assert [s.samples for s in writer.index.shards] == layout.shard_sizes(count)


def test_golden_index(tmp_path):
    write(tmp_path / "set", source="by hand", licence="CC0-1.0")
    image = sample_arrays(50)["image"]
    found = {"mean": pytest.approx([image.mean()]), "std": pytest.approx([image.std()])}
    assert json.loads((tmp_path / "set" / NAME).read_text()) == {
        "format": "hpc_train dataset",
        "format_version": 1,
        "fields": {
            "image": {"shape": [1, 3, 2], "dtype": "uint8", **found},
            "label": {"shape": [], "dtype": "int64", "range": [0, 2], "classes": ["a", "b", "c"]},
        },
        "shards": [
            {"file": "shard-00000.h5", "samples": 20, "block_rows": 8},
            {"file": "shard-00001.h5", "samples": 20, "block_rows": 8},
            {"file": "shard-00002.h5", "samples": 10, "block_rows": 8},
        ],
        "source": "by hand",
        "licence": "CC0-1.0",
        "sidecar": {},
    }


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_checksums_are_of_the_stored_chunks(tmp_path, compression):
    write(tmp_path / "set", layout=Layout(8, 20, compression))
    with h5py.File(tmp_path / "set" / "shard-00000.h5") as file:
        for name in FIELDS:
            sums = file[f"_checksums/{name}"]
            tail = (0,) * (file[name].ndim - 1)
            raw = [file[name].id.read_direct_chunk((row, *tail))[1] for row in (0, 8, 16)]
            assert sums.dtype == np.uint32
            assert sums[:].tolist() == [zlib.crc32(chunk) for chunk in raw]
            assert file[name].chunks[0] == 8
        assert len(raw[2]) <= 8 * 8


def test_a_failure_leaves_nothing(tmp_path):
    def fail():
        with ShardWriter(tmp_path / "new" / "set", FIELDS, Layout(8, 20)) as writer:
            writer.append(sample_arrays(30))
            assert any(tmp_path.rglob("*.h5"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_failed_overwrite_keeps_what_was_there(tmp_path):
    write(tmp_path / "set")
    before = everything(tmp_path / "set")

    def interrupt():
        with ShardWriter(tmp_path / "set", FIELDS, Layout(8, 20), overwrite=True) as writer:
            writer.append(sample_arrays(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt()
    assert everything(tmp_path / "set") == before
    write(tmp_path / "set", 3, overwrite=True)
    assert list(everything(tmp_path / "set")) == [NAME, "shard-00000.h5"]
    assert os.listdir(tmp_path) == ["set"]


def test_destinations_are_refused_that_are_not_data_sets(tmp_path):
    write(tmp_path / "set")
    with pytest.raises(UsageError, match="destination exists already") as caught:
        write(tmp_path / "set")
    assert "--overwrite" in caught.value.hint
    (tmp_path / "set" / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        write(tmp_path / "set", overwrite=True)
    (tmp_path / "set" / NAME).unlink()
    for place in (tmp_path / "set", tmp_path / "set" / "thesis.tex"):
        with pytest.raises(UsageError, match="must be a new folder"):
            write(place, overwrite=True)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty")


KILLED = """
import sys, time
from pathlib import Path
from tests.data.samples import FIELDS, Layout, ShardWriter, sample_arrays
with ShardWriter(Path(sys.argv[1]), FIELDS, Layout(8, 20)) as writer:
    writer.append(sample_arrays(50))
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_import_never_shows_half_a_data_set(tmp_path, how):
    """SIGKILL leaves a hidden folder, which the next import to the same place removes."""
    command = [sys.executable, "-c", KILLED, str(tmp_path / "set")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(how)
        process.wait(20)
    left = os.listdir(tmp_path)
    assert left == [] if how == signal.SIGINT else len(left) == 1 and left[0].endswith(".tmp")
    write(tmp_path / "set")
    assert os.listdir(tmp_path) == ["set"]


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path, monkeypatch):
    import hpc_train.data.shard as shard

    def full(self, rows, count):
        raise OSError("Can't write data (errno = 28, error message = 'No space left on device')")

    monkeypatch.setattr(shard.ShardFile, "append", full)
    with pytest.raises(DataError, match="no space left on the disk"):
        write(tmp_path / "set")
    assert list(tmp_path.iterdir()) == []


FULL = """
import os, sys
from pathlib import Path
from hpc_train.errors import DataError
from tests.data.samples import Layout, write
try:
    write(Path(sys.argv[1]) / "set", 10**5, Layout(1024, 2**20))
except DataError as error:
    print(error.message, os.listdir(sys.argv[1]))
"""


def test_a_really_full_disk(tmp_path):
    """HDF5 crashes the process when it cannot close a file: it must never see a full disk.

    The file system is mounted in a namespace of its own, which ends with the process.
    """
    script = 'mount -t tmpfs -o size=300k none "$1" 2>/dev/null || exit 77; exec "$2" -c "$3" "$1"'
    command = ["sh", "-c", script, "sh", str(tmp_path), sys.executable, FULL]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    done = subprocess.run(
        ["unshare", "--mount", *command], capture_output=True, text=True, timeout=60
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("a file system cannot be mounted here")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "cannot write: no space left on the disk []\n"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"image": np.zeros((2, 1, 3, 2), np.uint8)}, "must have the fields image, label"),
        (sample_arrays(2) | {"label": np.zeros(3, np.int64)}, r"equally many .*\[2, 3\]"),
        (sample_arrays(2) | {"label": np.zeros(2, np.int32)}, r"label must be int64 .*int32"),
        (sample_arrays(2) | {"image": np.zeros((2, 3, 2), np.uint8)}, r"image must be uint8 \(1"),
    ],
)
def test_samples_that_do_not_fit(tmp_path, arrays, message):
    with (
        pytest.raises(DataError, match=message),
        ShardWriter(tmp_path / "set", FIELDS) as writer,
    ):
        writer.append(arrays)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "must have fields"),
        ({"_checksums/x": FieldInfo((), "uint8")}, "cannot be the name"),
        ({"x": FieldInfo((), "complex64")}, "must hold booleans, integers or floats"),
        ({"x": FieldInfo((0,), "uint8")}, "must have values"),
    ],
)
def test_fields_that_cannot_be(tmp_path, fields, message):
    with pytest.raises(DataError, match=message):
        ShardWriter(tmp_path / "set", fields)


def test_no_samples_are_no_data_set(tmp_path):
    with pytest.raises(DataError, match="must hold samples"), ShardWriter(tmp_path / "x", FIELDS):
        pass
    assert list(tmp_path.iterdir()) == []


@given(
    shape=st.lists(st.integers(1, 1000), max_size=3).map(tuple),
    count=st.one_of(st.none(), st.integers(1, 10**9)),
    per_shard=st.one_of(st.none(), st.integers(1, 10**6)),
)
def test_planned_chunks_are_powers_of_two_of_a_mebibyte_at_most(shape, count, per_shard):
    fields = {"x": FieldInfo(shape, "uint8"), "y": FieldInfo((), "int64")}
    layout = plan_layout(fields, count, samples_per_shard=per_shard)
    largest = max(info.sample_bytes for info in fields.values())
    rows = layout.chunk_rows
    assert rows & (rows - 1) == 0
    assert rows == 1 or rows * largest <= CHUNK_BYTES
    if per_shard is None:
        assert layout.samples_per_shard % rows == 0
        assert rows == layout.samples_per_shard or (
            layout.samples_per_shard * (largest + 8) <= 2 * SHARD_BYTES
        )
    else:
        assert layout.samples_per_shard == per_shard
    if count is not None:
        assert rows <= 2 * count
        assert sum(layout.shard_sizes(10**4)) == 10**4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_rows": 0}, r"chunk_rows must be .*0"),
        ({"samples_per_shard": -1}, "samples_per_shard must be"),
        ({"compression": "zip"}, "did you mean 'gzip'"),
        ({"chunk_rows": 2**30}, "smaller than 4 GiB"),
    ],
)
def test_layouts_that_cannot_be(options, message):
    with pytest.raises(UsageError, match=message):
        plan_layout(FIELDS, **options)


def test_writing_again_gives_the_same_bytes(tmp_path):
    write(tmp_path / "a")
    time.sleep(1.1)  # HDF5's times have a resolution of a second
    write(tmp_path / "b")
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
