"""Every kind of source: what comes in, how it is recognised, and what is refused."""

import gzip
import importlib
import struct

import numpy as np
import pytest
from PIL import Image

from hpc_train.data.index import FieldInfo
from hpc_train.data.sources import Options, detect, open_source
from hpc_train.errors import DataError, SetupError, UsageError
from tests.data.samples import FIELDS, sample_arrays, write, write_h5


def load(path, kind="auto", rows=3, **options):
    """All samples of a source, by field, checked against what it promises."""
    source = open_source(kind, path, Options(**options))
    fields = source.fields()
    batches = [{n: np.array(a) for n, a in batch.items()} for batch in source.batches(rows)]
    found = {name: np.concatenate([batch[name] for batch in batches]) for name in fields}
    for name, info in fields.items():
        assert found[name].shape == (source.num_samples, *info.shape)
        assert found[name].dtype.newbyteorder("=") == np.dtype(info.dtype)
    return found, fields


def idx(path, array, kind=8):
    content = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    content += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


X = np.arange(40, dtype=np.float32).reshape(10, 4)
Y = np.arange(10, dtype=np.int64) % 4


def test_npy(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "z.npy", np.asfortranarray(X).astype(">f8"))
    found, _ = load(tmp_path / "x.npy", targets=("y.npy",))
    assert list(found) == ["x", "y"]
    assert np.array_equal(found["x"], X)
    found, _ = load(tmp_path)
    assert np.array_equal(found["z"], X)
    assert list(load(tmp_path, inputs=("x.npy",), targets=("y",))[0]) == ["x", "y"]
    with pytest.raises(DataError, match=r"\"yy\.npy\".*did you mean 'y\.npy'"):
        load(tmp_path, inputs=("yy.npy",))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    save(tmp_path / "a.npz", x=X, y=Y, f=np.asfortranarray(X))
    found, _ = load(tmp_path / "a.npz")
    assert np.array_equal(found["x"], X)
    assert np.array_equal(found["f"], X)
    assert np.array_equal(found["y"], Y)
    assert list(load(tmp_path / "a.npz", inputs=("y",))[0]) == ["y"]
    with pytest.raises(DataError, match='unknown array "v"'):
        load(tmp_path / "a.npz", inputs=("v",))


def test_npy_that_cannot_be(tmp_path):
    np.save(tmp_path / "objects.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(DataError, match="must hold booleans") as caught:
        load(tmp_path / "objects.npy")
    assert "never loaded" in caught.value.hint
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(DataError, match="not a NumPy array"):
        load(tmp_path / "text.npy")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(DataError, match=r"not an \.npz archive"):
        load(tmp_path / "text.npz")
    np.savez(tmp_path / "b.npz", x=X, y=Y[:3])
    with pytest.raises(DataError, match=r"same length .*x: 10, y: 3"):
        load(tmp_path / "b.npz")
    np.save(tmp_path / "scalar.npy", np.float32(1))
    with pytest.raises(DataError, match="must have a first axis"):
        load(tmp_path / "scalar.npy")
    np.save(tmp_path / "short.npy", X)
    content = (tmp_path / "short.npy").read_bytes()
    (tmp_path / "short.npy").write_bytes(content[:-8])
    with pytest.raises(DataError, match="cannot read the arrays"):
        load(tmp_path / "short.npy")


def table(tmp_path, text, name="t.csv"):
    (tmp_path / name).write_text(text)
    return tmp_path / name


def test_csv_with_classes(tmp_path):
    path = table(tmp_path, 'a, b,kind\n1,2.5,"rose, red"\n\n-3,4e2,fern\n5,6,fern\n')
    found, fields = load(path, rows=2, target="kind")
    assert found["features"].tolist() == [[1, 2.5], [-3, 400], [5, 6]]
    assert found["label"].tolist() == [1, 0, 0]
    assert fields["label"] == FieldInfo((), "int64", classes=("fern", "rose, red"))


def test_csv_with_numbers_to_predict(tmp_path):
    found, fields = load(table(tmp_path, "a,y\n1,7\n2,-8\n"), target="y")
    assert found["label"].tolist() == [7, -8]
    assert fields["label"].classes == ()
    found, _ = load(table(tmp_path, "a\ty\n1\t7\n2\t8.5\n", "t.tsv"), target="y")
    assert found["target"].tolist() == [7, 8.5]
    assert list(load(table(tmp_path, "a,y\n1,7\n"))[0]) == ["features"]
    found, fields = load(table(tmp_path, "a,y\n1,7\n2,x\n"), target="y")
    assert fields["label"].classes == ("7", "x")


@pytest.mark.parametrize(
    ("text", "target", "where", "message"),
    [
        ("a,b\n1,2\n3,k\n", None, "t.csv, line 3, column b", 'must be a number (value: "k")'),
        ("a,b\n1,\n", None, "t.csv, line 2, column b", 'must be a number (value: "")'),
        ("a,b\n1,2\n3\n", None, "t.csv, line 3", "must have 2 cells (cells: 1)"),
        ("a,a\n1,2\n", None, "t.csv, line 1", 'different names (twice: "a")'),
        ("1,2\n3,4\n", None, "t.csv, line 1", "begin with a line of column names"),
        ("", None, "t.csv", "begin with a line of column names"),
        ("a,b\n", None, "t.csv", "there must be samples"),
        ("a,y\n1,\n", "y", "t.csv, line 2, column y", "must not be empty"),
        ("y\n1\n", "y", "t.csv", "columns beside the target"),
        ("a,y\n1,1.5\n2,x\n", "y", "", "must not mix fractions and text"),
        ('a,b\n1,"2\n', None, "t.csv, after line 1", "cannot read the table"),
    ],
)
def test_tables_that_cannot_be(tmp_path, text, target, where, message):
    with pytest.raises(DataError) as caught:
        load(table(tmp_path, text), target=target)
    assert message in caught.value.message
    assert (caught.value.where or "").endswith(where)


def test_csv_without_such_a_column(tmp_path):
    with pytest.raises(UsageError, match="did you mean 'kind'"):
        load(table(tmp_path, "a,kind\n1,x\n"), target="knid")


IMAGES = np.arange(5 * 6, dtype=np.uint8).reshape(5, 2, 3)


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx(tmp_path, end):
    images = idx(tmp_path / f"t-images-idx3-ubyte{end}", IMAGES)
    idx(tmp_path / "t-labels-idx1-ubyte", np.arange(5))
    for path in (images, tmp_path):
        found, fields = load(path)
        assert np.array_equal(found["image"], IMAGES[:, None])
        assert found["label"].tolist() == [0, 1, 2, 3, 4]
        assert fields["image"] == FieldInfo((1, 2, 3), "uint8")
    assert list(load(images, labels="none")[0]) == ["image"]
    idx(tmp_path / "other", np.arange(5) + 1)
    assert load(images, labels="other")[0]["label"].tolist() == [1, 2, 3, 4, 5]


def test_idx_that_cannot_be(tmp_path):
    images = idx(tmp_path / "t-images-idx3-ubyte", IMAGES)
    with pytest.raises(DataError, match="no labels file found") as caught:
        load(images)
    assert "--labels" in caught.value.hint
    labels = idx(tmp_path / "t-labels-idx1-ubyte", np.arange(4))
    with pytest.raises(DataError, match=r"one label per image \(images: 5, labels: 4\)"):
        load(images)
    with pytest.raises(DataError, match="unsigned bytes with 3 axes"):
        load(labels)
    idx(labels, np.arange(5))
    images.write_bytes(images.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"must hold 5 samples.*\(samples: 4\)"):
        load(images)
    gz = idx(tmp_path / "u-images-idx3-ubyte.gz", IMAGES)
    gz.write_bytes(gz.read_bytes()[:-12])
    with pytest.raises(DataError, match="cannot read"):
        load(gz, labels=str(labels))
    with pytest.raises(DataError, match="must hold one IDX file of images"):
        load(tmp_path)


def test_text(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes("naïve\r\n→ naïve".encode())
    found, fields = load(path)
    vocabulary = fields["token"].classes
    assert "".join(vocabulary[token] for token in found["token"]) == "naïve\r\n→ naïve"
    assert list(vocabulary) == sorted(vocabulary)
    found, fields = load(path, tokens="bytes")
    assert found["token"].tobytes() == path.read_bytes()
    assert fields["token"] == FieldInfo((), "uint8")


def test_text_in_pieces_that_cut_characters(tmp_path, monkeypatch):
    from hpc_train.data.sources import text

    monkeypatch.setattr(text, "_PIECE_BYTES", 3)
    content = "".join(chr(0x4E00 + i) for i in range(300))
    (tmp_path / "t.txt").write_text(content, encoding="utf-8")
    found, fields = load(tmp_path / "t.txt")
    assert fields["token"].dtype == "int32"
    assert found["token"].tolist() == list(range(300))


def test_text_that_cannot_be(tmp_path):
    (tmp_path / "t.txt").write_bytes(b"ab\xffcd")
    with pytest.raises(DataError, match="must be UTF-8") as caught:
        load(tmp_path / "t.txt")
    assert "--tokens bytes" in caught.value.hint
    with pytest.raises(UsageError, match="did you mean 'bytes'"):
        load(tmp_path / "t.txt", tokens="byte")


def picture(path, size=(3, 2), mode="RGB", colour=7):
    path.parent.mkdir(exist_ok=True)
    Image.new(mode, size, colour if mode != "RGB" else (colour, 0, 255)).save(path)


def test_images(tmp_path):
    picture(tmp_path / "dog" / "a.png", colour=1)
    picture(tmp_path / "cat" / "b.png", colour=2)
    picture(tmp_path / "cat" / "c.png", colour=3)
    found, fields = load(tmp_path)
    assert fields["label"].classes == ("cat", "dog")
    assert fields["image"] == FieldInfo((3, 2, 3), "uint8")
    pairs = zip(found["image"][:, 0, 0, 0].tolist(), found["label"].tolist(), strict=True)
    assert sorted(pairs) == [(1, 1), (2, 0), (3, 0)]
    assert np.array_equal(found["image"], load(tmp_path)[0]["image"])
    assert load(tmp_path, size=(5, 4), mode="L")[1]["image"].shape == (1, 5, 4)
    with pytest.raises(UsageError, match='unknown mode "CMYK"'):
        load(tmp_path, mode="CMYK")
    picture(tmp_path / "cat" / "d.png", size=(4, 4))
    with pytest.raises(DataError, match=r"must have the same size, ") as caught:
        load(tmp_path)
    assert "--size" in caught.value.hint
    assert load(tmp_path, size=(2, 2))[0]["image"].shape == (4, 3, 2, 2)


def test_images_that_cannot_be(tmp_path):
    picture(tmp_path / "cat" / "a.png", mode="I;16")
    with pytest.raises(DataError, match="8 bits per channel"):
        load(tmp_path)
    (tmp_path / "cat" / "a.png").write_text("meow")
    with pytest.raises(DataError, match="not an image that Pillow can read") as caught:
        load(tmp_path)
    assert caught.value.where.endswith("a.png")
    picture(tmp_path / "cat" / "a.png", size=(60, 60))
    content = (tmp_path / "cat" / "a.png").read_bytes()
    (tmp_path / "cat" / "a.png").write_bytes(content[:70])
    with pytest.raises(DataError, match="cannot decode image"):
        load(tmp_path)
    (tmp_path / "dog").mkdir()
    with pytest.raises(DataError, match="folder of a class must hold images"):
        load(tmp_path)
    with pytest.raises(DataError, match="one sub-folder per class"):
        load(tmp_path / "dog", kind="images")


def test_images_without_pillow(tmp_path, monkeypatch):
    picture(tmp_path / "cat" / "a.png")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SetupError, match="needs Pillow") as caught:
        load(tmp_path)
    assert "hpc-train[images]" in caught.value.hint


def test_hdf5(tmp_path, caplog):
    path = write_h5(tmp_path / "a.h5", g__x=X, y=Y, name=["n"] * 10)
    found, fields = load(path)
    assert np.array_equal(found["g/x"], X)
    assert (fields["y"].low, fields["y"].high) == (0, 3)
    assert "name is left out" in caplog.text
    assert list(load(path, inputs=("y",))[0]) == ["y"]
    write_h5(tmp_path / "b.h5", g__x=X + 1, y=Y)
    assert len(load(tmp_path, inputs=("g/x",))[0]["g/x"]) == 20
    assert len(load(tmp_path / "*.h5", kind="hdf5", inputs=("y",))[0]["y"]) == 20
    write_h5(tmp_path / "c.h5", x=X, y=Y[:2])
    with pytest.raises(DataError, match="same length"):
        load(tmp_path / "c.h5")
    write_h5(tmp_path / "d.h5", name=["n"])
    with pytest.raises(DataError, match="must hold datasets of numbers"):
        load(tmp_path / "d.h5")


def test_a_data_set_keeps_classes_source_and_licence(tmp_path):
    write(tmp_path / "set", 50, source="here", licence="CC0-1.0")
    found, fields = load(tmp_path / "set")
    assert np.array_equal(found["image"], sample_arrays(50)["image"])
    assert fields["label"].classes == FIELDS["label"].classes
    source = open_source("auto", tmp_path / "set")
    assert (source.source, source.licence) == ("here", "CC0-1.0")
    with pytest.raises(DataError, match='unknown dataset "images"'):
        load(tmp_path / "set", inputs=("images",))


def test_kinds_and_options_that_do_not_fit(tmp_path):
    with pytest.raises(DataError, match="no such file") as caught:
        detect(table(tmp_path, "a\n1\n").with_name("u.csv"))
    assert "t.csv" in caught.value.hint
    with pytest.raises(DataError, match="cannot tell the kind") as caught:
        detect(table(tmp_path, "?", "t.bin"))
    assert "--kind" in caught.value.hint
    with pytest.raises(UsageError, match="did you mean 'csv'"):
        load(tmp_path / "t.csv", kind="cvs")
    with pytest.raises(UsageError, match=r"--size does not apply to the kind csv.*--target"):
        load(tmp_path / "t.csv", size=(2, 2))
