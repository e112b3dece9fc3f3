"""The journal: every prefix of bytes is a journal, and no record that counted is lost."""

import pytest

from hpc_train.errors import HpcTrainError
from hpc_train.tune.journal import Journal, read

RECORDS = [{"kind": "asked", "trial": n, "params": {"a.b": "ü\n"}} for n in range(3)]


def written(tmp_path):
    path = tmp_path / "study" / "journal.jsonl"
    with Journal(path) as journal:
        for record in RECORDS:
            journal.append(record)
    return path


def test_what_was_appended_is_read(tmp_path):
    assert read(written(tmp_path)) == RECORDS


def test_a_line_cut_off_anywhere_is_dropped_and_overwritten(tmp_path):
    path = written(tmp_path)
    data = path.read_bytes()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        whole = data[:length].count(b"\n")
        assert read(path) == RECORDS[:whole]
        with Journal(path) as journal:
            assert journal.records == RECORDS[:whole]
            journal.append({"kind": "left"})
        assert read(path) == [*RECORDS[:whole], {"kind": "left"}]


def test_a_damaged_line_in_the_middle_is_named(tmp_path):
    path = written(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"trial":1', b'"trial:1'))
    with pytest.raises(HpcTrainError, match=r"journal.jsonl:2"):
        read(path)
