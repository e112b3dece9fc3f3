"""What the MPI library says of itself, asked in a child process as `doctor` asks."""

import os
from pathlib import Path

import pytest

from hpc_train.comm.facts import ulfm_started
from hpc_train.launch import probe


@pytest.fixture(scope="module")
def library():
    answer = probe(os.environ, start=False)
    if answer.facts is None:
        pytest.skip(f"no MPI library: {answer.problem}")
    return answer.facts


def test_the_library_is_named_without_starting_it(library):
    assert library["vendor"] != "unknown"
    assert library["vendor_version"][0].isdigit()
    assert Path(library["path"]).exists()
    assert "size" not in library


def test_a_started_library_tells_more(library):
    facts = probe(os.environ, start=True).facts
    assert facts.items() >= library.items()
    assert (facts["size"], facts["rank"]) == (1, 0)
    assert facts["thread_level"] in ("single", "funneled", "serialized", "multiple")
    assert facts["ulfm_started"] is False
    if library["vendor"] == "Open MPI" and library["vendor_version"].startswith("5."):
        assert facts["ulfm"] is True


def test_a_library_that_is_not_there():
    answer = probe({**os.environ, "MPI4PY_LIBMPI": "/no/such/libmpi.so"}, start=True)
    assert answer.facts is None
    assert answer.missing


def test_a_child_that_takes_too_long_is_given_up():
    answer = probe(os.environ, start=True, seconds=0.001)
    assert answer.facts is None
    assert answer.problem == "it does not start within 0.001 s"


@pytest.mark.parametrize(
    ("value", "started"), [("1", True), ("true", True), ("0", False), ("", False), (None, False)]
)
def test_the_request_for_fault_tolerance_is_read_from_the_environment(value, started):
    environ = {} if value is None else {"OMPI_MCA_mpi_ft_enable": value}
    assert ulfm_started(environ) is started
