"""What `auto` chose is known to the next job on the same hosts, and to no other."""

import json
from types import SimpleNamespace

import pytest

from hpc_train.comm import remembered
from hpc_train.comm.choice import Choice


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def job(hosts=("a/1", "a/1"), *, tight=False, version="MPI 5", rank=0):
    return SimpleNamespace(
        world=SimpleNamespace(is_coordinator=rank == 0, size=len(hosts)),
        hosts=list(hosts),
        gate=SimpleNamespace(is_tight=tight),
        _mpi=SimpleNamespace(Get_library_version=lambda: version),
        choices={},
        broadcast=lambda value: value,
    )


def test_the_next_job_on_the_same_hosts_chooses_the_same():
    one, other = job(), job(("a/2", "a/2"))  # booted again
    one.choices[2**20, "float32", True] = Choice("shared", "1.0 ms, 2.00 times as fast as native")
    remembered.remember(one)
    remembered.recall(other)
    (choice,) = other.choices.values()
    assert other.choices.keys() == one.choices.keys()
    assert (choice.name, choice.reason) == ("shared", "1.0 ms, 2.00 times as fast as native")
    assert choice.day
    remembered.remember(other)
    third = job()
    remembered.recall(third)
    assert third.choices == other.choices


@pytest.mark.parametrize(
    "other",
    [
        job(("a/1",)),
        job(("a/1", "b/1")),
        job(tight=True),
        job(version="MPI 6"),
    ],
)
def test_other_hosts_cores_or_mpi_measure_for_themselves(other):
    one = job()
    one.choices[64, "float32", False] = Choice("ring", "x")
    remembered.remember(one)
    remembered.recall(other)
    assert other.choices == {}


def test_only_rank_0_writes_and_a_folder_that_cannot_be_made_is_done_without(tmp_path):
    remembered.remember(job(rank=1))
    assert not (tmp_path / "cache").exists()
    (tmp_path / "cache").write_text("a file")
    remembered.remember(job())
    assert remembered.known() == {}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"schema_version": 9, "sets": {}}',
        '{"schema_version": 2}',
        '{"schema_version": 2, "sets": {"k": {"day": "2020-01-01"}}}',
        '{"schema_version": 2, "sets": [1]}',
    ],
)
def test_what_is_old_or_of_another_kind_is_not_taken(text):
    remembered.path().parent.mkdir(parents=True)
    remembered.path().write_text(text)
    assert remembered.known() == {}


def test_a_choice_that_was_tampered_with_is_measured_again():
    one = job()
    one.choices[64, "float32", False] = Choice("ring", "x")
    remembered.remember(one)
    document = json.loads(remembered.path().read_text())
    for made in document["sets"].values():
        made["choices"] = [["many", "float32", False, "ring", "x"], [1]]
    remembered.path().write_text(json.dumps(document))
    other = job()
    remembered.recall(other)
    assert other.choices == {}


def test_no_more_than_some_sets_are_kept():
    for number in range(70):
        remembered.remember(job((f"h{number}/1",)))
    kept = [one["hosts"] for one in remembered.known().values()]
    assert len(kept) == 64
    assert kept[-1] == ["h69"]
