"""Figures: what each rank did, by the number that it had at the beginning."""

import json

import pytest

from hpc_train.train.figures import Figures


def test_ranks_that_are_gone_and_back_keep_their_numbers():
    figures = Figures(3)
    figures.add(60, 2.0)
    figures.add_up((0, 1, 2), (20, 20, 20), (1.0, 2.0, 1.0))
    figures.add(60, 2.0, skipped=6)
    figures.add_up((1, 2), (40, 20), (2.0, 2.0))  # rank 0 is gone
    figures.add_up((1, 0, 2), (20, 20, 20), (1.0, 1.0, 1.0))  # replaced
    other = Figures(3)
    other.take_up(json.loads(json.dumps(figures.document())))
    assert vars(other) == vars(figures)
    assert (other.samples, other.seconds, other.skipped) == (114, 4.0, 6)
    rows = other.rows((1, 0, 2), (1, 1, 1))
    assert [row["rank"] for row in rows] == [1, 0, 2]
    assert [row["busy_seconds"] for row in rows] == [5.0, 2.0, 4.0]
    assert [row["share"] for row in rows] == pytest.approx([80 / 180, 40 / 180, 60 / 180])
    assert [row["waiting_seconds"] for row in rows] == [0.0, 1.0, 1.0]
