"""Killed at tens of random instants, damaged in tens of ways: a valid set is always found."""

import json
import subprocess
import sys
from pathlib import Path

COUNT = 25


def test_killed_or_damaged_a_valid_set_is_there(tmp_path):
    command = [sys.executable, "-m", "tests.checkpoint.kills", str(tmp_path), str(COUNT)]
    ended = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["wrong_after_kill"] == []
    assert document["wrong_after_damage"] == []
    assert (document["kills"], document["damages"]) == (COUNT, COUNT)
    assert document["sets"] > 5, "hardly a save came to its end"
