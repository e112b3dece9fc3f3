"""`hpc-train doctor` as users call it."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from hpc_train.errors import SetupError
from hpc_train.launch import find, launching

DOCTOR = [sys.executable, "-m", "hpc_train", "doctor"]


@pytest.fixture(scope="module")
def launcher():
    try:
        return find(os.environ)
    except SetupError as error:
        pytest.skip(str(error))


def call(argv, cwd, **environ):
    answer = subprocess.run(
        argv,
        cwd=cwd,
        env={**os.environ, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return answer.returncode, answer.stdout, answer.stderr


def test_alone_a_line_per_check(launcher, tmp_path):
    code, out, err = call(DOCTOR, tmp_path)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert any(line.startswith("OK    MPI library ") for line in lines)
    assert any(line.startswith("OK    one world ") for line in lines)
    assert "FAIL" not in out
    assert list(tmp_path.iterdir()) == []


def test_ranks_are_merged_and_one_of_them_prints(launcher, tmp_path):
    with launching([*DOCTOR, "--json", "--data", "missing.h5"], 2) as ranks:
        code, out, _ = call(ranks.argv, tmp_path, **ranks.environ)
    document = json.loads(out)
    assert code == 3
    assert document["schema_version"] == 1
    assert not document["ok"]
    assert len(document["ranks"]) == 2
    checks = {check["name"]: check for check in document["checks"]}
    assert checks["one world"]["text"] == "all 2 ranks are in it"
    assert checks["data"]["status"] == "FAIL"
    assert "missing.h5 does not exist" in checks["data"]["text"]
    assert "\x1b" not in out


def test_separate_worlds_fail_and_only_the_first_rank_says_so(launcher, tmp_path):
    def claim(rank):
        claims = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": rank}
        return call(DOCTOR, tmp_path, **claims)

    with ThreadPoolExecutor(2) as pool:
        (code, out, _), (other_code, other_out, _) = pool.map(claim, ["0", "1"])
    assert (code, other_code) == (3, 3)
    assert "started 4 ranks" in out
    assert "hint: start with the mpirun of" in out
    assert other_out == ""


def test_without_an_mpi_the_rest_is_checked(tmp_path):
    code, out, err = call(DOCTOR, tmp_path, MPI4PY_LIBMPI=str(tmp_path / "none.so"))
    assert (code, err) == (3, "")
    assert "FAIL  MPI library" in out
    assert "hint: pip install 'hpc-train[mpi]'" in out
    assert "OK    torch " in out
