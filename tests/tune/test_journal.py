"""The journal: every prefix of bytes is a journal, and no record that counted is lost."""

import os
import threading

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


def test_what_was_appended_comes_to_the_disk_without_being_waited_for(tmp_path, monkeypatch):
    sync, let, calls = os.fsync, threading.Event(), []

    def slowly(file):
        calls.append(file)
        assert let.wait(30)
        sync(file)

    with Journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr(os, "fsync", slowly)
        for record in RECORDS:
            journal.append(record)
        assert (journal.written, journal.synced) == (3, 0)
        let.set()
        journal.flush()
        assert journal.synced == 3
        assert len(calls) <= 2  # one for the first, one for all that came meanwhile
    assert read(tmp_path / "journal.jsonl") == RECORDS


def test_a_disk_that_refuses_is_an_error_for_who_waits(tmp_path, monkeypatch):
    def full(file):
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "journal.jsonl") as journal:
        monkeypatch.setattr(os, "fsync", full)
        journal.append(RECORDS[0])
        with pytest.raises(HpcTrainError, match="No space left"):
            journal.flush()
