"""`hpc-train bench scaling` as a user calls it; one real study, as small as it gets."""

import json
import os
import signal
import subprocess
import sys

import pytest


def bench(*arguments, folder, environ=None):
    """Call the command; its process group is killed at its time limit."""
    process = subprocess.Popen(
        [sys.executable, "-m", "hpc_train", "bench", "scaling", *arguments],
        cwd=folder,
        env={**os.environ, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=150)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM)
        out, err = process.communicate()
        pytest.fail(f"not done in time\n{out}\n{err}")
    return process.returncode, out, err


def test_two_ranks_are_measured_from_start_to_picture(tmp_path):
    small = ["--batch-size", "8", "--micro-batch-size", "4", "--steps", "3", "--warmup", "1"]
    code, out, err = bench(
        "-n", "2", "--modes", "strong", "--rounds", "1", *small, "--out", "here", "--json",
        folder=tmp_path,
    )  # fmt: skip
    assert code == 0, err
    document = json.loads(out)
    (point,) = document["modes"]["strong"]
    assert point["ranks"] == 2
    assert point["batch_size"] == 8
    assert all(figures["samples_per_second"] > 0 for figures in point["sides"].values())
    assert point["parts_seconds"]["compute"] > 0
    assert document["loss_difference"] < 1e-3
    assert "round 1/1  ranks 2" in err
    kept = sorted(path.suffix for path in (tmp_path / "here").iterdir())
    assert kept == [".json", ".png"]


def test_a_dry_run_lists_the_jobs_and_writes_nothing(tmp_path):
    code, out, _ = bench("-n", "1,2", "--dry-run", "--json", folder=tmp_path)
    assert code == 0
    assert len(json.loads(out)["round"]) == 9
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "1,x"], 'must read like 1,2,4 (value: "1,x")'),
        (["--modes", "stron"], "did you mean 'strong'?"),
        (["-n", "9", "--batch-size", "8"], "every rank needs a sample"),
        (["--rounds", "0"], "not in the range"),
    ],
)
def test_wrong_options_are_refused_with_their_value(arguments, message, tmp_path):
    code, _, err = bench(*arguments, folder=tmp_path)
    assert code == 2
    assert message in err


def test_ranks_do_not_start_ranks(tmp_path):
    code, _, err = bench(folder=tmp_path, environ={"OMPI_COMM_WORLD_SIZE": "2"})
    assert code == 2
    assert "without mpirun" in err
