"""Curves: sampled evenly, drawn as text."""

import pytest

from hpc_train.errors import HpcTrainError
from hpc_train.observe.curve import Curve, check_picture, draw, sparkline


def test_a_sample_has_the_first_and_the_last():
    assert Curve.sample(float, 1).batches == (0,)
    assert Curve.sample(float, 5).batches == (0, 1, 2, 3, 4)
    curve = Curve.sample(lambda batch: 2.0 * batch, 10**6, most=11)
    assert len(curve.batches) == 11
    assert (curve.batches[0], curve.batches[-1]) == (0, 10**6 - 1)
    assert curve.values[5] == 2.0 * curve.batches[5]


def test_a_line_of_bars():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([0, 7, 0, 0], width=2) == "█▁"
    assert len(sparkline(range(1000), width=60)) == 60
    assert sparkline([0, 7], encoding="ascii") == sparkline([0, 7], encoding=None) == "_#"


def test_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    check_picture(path)
    draw(Curve((0, 1), (0.5, 1.0)), path, title="a", label="b")
    assert path.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(HpcTrainError, match="cannot write the plot"):
        draw(Curve((0,), (0.5,)), tmp_path / "no" / "c.png", title="a", label="b")
    with pytest.raises(HpcTrainError, match=r"must end with .png, .pdf or .svg"):
        check_picture(tmp_path / "curve.txt")
