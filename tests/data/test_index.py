"""The index: its document is fixed, and a damaged one is a clear error."""

import json

import pytest

from hpc_train.data.index import FieldInfo, Index, Shard
from hpc_train.errors import DataError

INDEX = Index(
    fields={
        "image": FieldInfo((1, 8, 8), "uint8"),
        "label": FieldInfo((), "int64", 0, 2, ("a", "b", "c")),
    },
    shards=(Shard("shard-00000.h5", 100, 32), Shard("shard-00001.h5", 7, 32)),
    source="somewhere",
    licence="CC0-1.0",
)

DOCUMENT = {
    "format": "hpc_train dataset",
    "format_version": 1,
    "fields": {
        "image": {"shape": [1, 8, 8], "dtype": "uint8"},
        "label": {"shape": [], "dtype": "int64", "range": [0, 2], "classes": ["a", "b", "c"]},
    },
    "shards": [
        {"file": "shard-00000.h5", "samples": 100, "block_rows": 32},
        {"file": "shard-00001.h5", "samples": 7, "block_rows": 32},
    ],
    "source": "somewhere",
    "licence": "CC0-1.0",
    "sidecar": {},
}


def test_the_document_never_changes_under_the_same_version():
    assert INDEX.to_json() == DOCUMENT
    assert Index.from_json(json.loads(json.dumps(DOCUMENT)), "here") == INDEX
    assert INDEX.num_samples == 107


def test_it_is_read_as_it_was_written(tmp_path):
    INDEX.write(tmp_path)
    assert Index.read(tmp_path) == INDEX
    assert [path.name for path in tmp_path.iterdir()] == ["index.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": "something else"},
        {"format_version": 2},
        {"fields": None},
        {"fields": {"x": {"shape": [1]}}},
        {"fields": {"x": {"shape": [1], "dtype": "no such type"}}},
        {"shards": [{"file": "a.h5"}]},
        {"shards": [{"file": "a.h5", "samples": -1, "block_rows": 4}]},
        {"shards": [{"file": "a.h5", "samples": 1, "block_rows": 0}]},
    ],
)
def test_a_damaged_one_is_a_data_error_that_says_where(change):
    with pytest.raises(DataError) as caught:
        Index.from_json(DOCUMENT | change, "folder/index.json")
    assert caught.value.where == "folder/index.json"


def test_what_is_no_document_at_all_is_refused(tmp_path):
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(DataError, match="damaged index"):
        Index.read(tmp_path)
    with pytest.raises(DataError, match="cannot read index"):
        Index.read(tmp_path / "nowhere")
