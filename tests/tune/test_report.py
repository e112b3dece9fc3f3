"""Reports: figures of a study, and the page made of them."""

import json
import random
from xml.etree import ElementTree

import pytest

from hpc_train.tune.history import replay
from hpc_train.tune.page import page
from hpc_train.tune.report import importance, positions, report
from tests.tune.studies import Job, study


@pytest.fixture
def told():
    job = Job(study(trials=20, pruner={"name": "asha", "reduction": 2}), fails=(3,))
    about = {"kind": "study", "digest": "d", "metrics": ["loss"], "directions": ["minimize"]}
    left = {"kind": "left", "time": job.now, "overhead": 0.2, "complete": True}
    records = [about, *job.run()]
    left["time"] = job.now
    return report(replay([*records, left]))


def test_figures_are_json_and_add_up(told):
    json.dumps(told, allow_nan=False)
    assert told["status"] == "done"
    assert sum(told["counts"].values()) == 20
    assert told["counts"]["failed"] == 1
    values = [one["values"][0] for one in told["best"]]
    assert values == sorted(values)
    assert 0.5 < told["utilisation"] <= 1.0
    assert told["overhead_seconds_per_trial"] == pytest.approx(0.01)


def test_what_matters_is_told_apart_from_what_does_not():
    from hpc_train.tune.history import Trial

    chance = random.Random(0)
    trials = []
    for number in range(60):
        params = {"a": chance.random(), "b": chance.random(), "c": chance.choice(["x", "y"])}
        value = 3 * params["a"] + (params["c"] == "x")
        trials.append(Trial(number, params, "complete", values=[value]))
    found = importance(trials, ["minimize"])
    assert next(iter(found)) == "a"
    assert found["a"] > 0.5
    assert found["b"] < 0.1
    assert importance(trials[:3], ["minimize"]) == {}


def test_positions_follow_the_logarithm_where_values_span_decades():
    assert list(positions([1.0, 10.0, 100.0])) == pytest.approx([0, 0.5, 1])
    assert list(positions([1.0, 2.0, 3.0])) == pytest.approx([0, 0.5, 1])
    assert list(positions(["x", "y", "x"])) == [0, 1, 0]
    assert list(positions([1.0, None, 3.0])) == [0, -1, 1]


def test_the_page_is_whole_and_fetches_nothing(told):
    text = page("a <study>", told)
    ElementTree.fromstring(
        text.removeprefix("<!doctype html>").replace('<meta charset="utf-8">', "")
    )
    assert "a &lt;study&gt;" in text
    assert "http" not in text
    assert text.count("<polyline") >= 20
    assert "loss is not finite" in text
