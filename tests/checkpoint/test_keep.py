"""What is kept: the last sets and the best one."""

import math

import pytest

from hpc_train.checkpoint import METRICS, Best, Store
from hpc_train.checkpoint.keep import kept
from tests.checkpoint.test_store import tensors

MOST, LEAST = Best.parse("max accuracy"), Best.parse("min loss")


@pytest.mark.parametrize("text", ["", "accuracy", "best loss", "max", "max "])
def test_what_is_best_must_be_said(text):
    with pytest.raises(ValueError, match="best must read"):
        Best.parse(text)


def test_the_best_is_the_first_of_the_extreme_values():
    values = {1: 0.5, 2: 0.9, 3: None, 4: 0.9, 5: 0.1, 6: None}
    assert kept(values, 1, None) == {6}
    assert kept(values, 1, MOST) == {2, 6}
    assert kept(values, 2, LEAST) == {5, 6}
    assert kept({7: None}, 1, MOST) == {7}
    assert kept({}, 1, MOST) == set()


def test_not_a_number_is_never_best():
    assert MOST.value({METRICS: {"accuracy": math.nan}}) is None
    assert not LEAST.beats(math.nan, 1.0)
    assert LEAST.beats(1.0, None)
    assert not LEAST.beats(1.0, 1.0)


def test_the_best_set_outlives_the_last_ones_and_a_damaged_manifest(tmp_path):
    store = Store(tmp_path, 1, MOST)
    for step, value in enumerate([0.3, 0.8, 0.5, None, 0.7]):
        store.save(step, tensors(step), {} if value is None else {METRICS: {"accuracy": value}})
    assert store.steps() == [1, 4]
    assert store.best_value() == 0.8
    (store.path(1) / "manifest.json").write_text("broken")
    assert store.best_value() == 0.7
    assert Store(tmp_path, 1).best_value() is None
