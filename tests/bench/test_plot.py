"""The picture is drawn, and a missing library is named before anything is measured."""

import sys

import pytest

from hpc_train.bench.scaling import plot
from hpc_train.bench.scaling.report import report
from hpc_train.bench.scaling.settings import Settings
from hpc_train.errors import HpcTrainError, SetupError
from tests.bench.test_report import measured


@pytest.fixture
def document():
    settings = Settings((1, 2), rounds=2)
    figures = report(settings, measured(settings, lambda side, n, batch: batch / n))
    environment = {"processor": "Foo 9000", "cores": 2, "date": "today"}
    return {**figures, "environment": environment}


def test_a_png_is_drawn(document, tmp_path):
    plot.draw(document, tmp_path / "scaling.png")
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_says_where(document, tmp_path):
    with pytest.raises(HpcTrainError, match="cannot write the plot"):
        plot.draw(document, tmp_path / "none" / "scaling.png")


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SetupError) as caught:
        plot.require()
    assert "hpc-train[plot]" in caught.value.hint
