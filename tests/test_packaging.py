"""What ships with the package agrees with itself."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import hpc_train

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(
        r"^([^#=\s]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
}
NEEDED = [Requirement(text) for text in PROJECT["dependencies"]] + [
    Requirement(text) for extra in PROJECT["optional-dependencies"].values() for text in extra
]


@pytest.mark.parametrize("needed", NEEDED, ids=str)
def test_every_requirement_is_pinned_within_its_bounds(needed):
    assert PINS[canonicalize_name(needed.name)] in needed.specifier


def test_pins_are_plain_versions():
    text = (ROOT / "constraints.txt").read_text()
    assert len(PINS) == len([line for line in text.splitlines() if not line.startswith("#")])
    for name, version in PINS.items():
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)*(\.post[0-9]+)?", version), name


def test_versions_agree():
    citation = (ROOT / "CITATION.cff").read_text()
    assert PROJECT["version"] == hpc_train.__version__
    assert f"\nversion: {hpc_train.__version__}\n" in citation


def test_the_licence_is_the_one_declared():
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "BSD-3-Clause"
    assert "license: BSD-3-Clause" in (ROOT / "CITATION.cff").read_text()
    assert text.startswith("BSD 3-Clause License\n\nCopyright (c) 2026, the hpc_train developers\n")
