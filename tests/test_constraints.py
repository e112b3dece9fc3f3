"""constraints.txt pins one version of everything, and no merge is left half-way in any file."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIN = re.compile(r"([A-Za-z0-9._-]+)==[0-9][A-Za-z0-9.+!]*")


def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_every_line_is_one_pin():
    wrong = [line for line in pins() if not PIN.fullmatch(line)]
    assert not wrong, wrong
    names = [normal(line.split("==")[0]) for line in pins()]
    assert len(names) == len(set(names))


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    pinned = {normal(line.split("==")[0]) for line in pins()}
    missing = {normal(re.match(r"[A-Za-z0-9._-]+", one)[0]) for one in wanted} - pinned
    assert not missing, missing


def test_no_file_holds_the_marks_of_a_merge():
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone")
    call = ["git", "grep", "-lE", "^(<<<<<<<|>>>>>>>) "]
    found = subprocess.run(call, cwd=ROOT, capture_output=True, text=True).stdout
    assert not found, found
