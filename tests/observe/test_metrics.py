"""metrics.jsonl and result.json: strict JSON, cut on resume, whole or absent."""

import json
import math
import os

import pytest

from hpc_train.observe import Forgiving, MetricsFile, Result, environment, read_result, write_json


def step(batch, **more):
    return {"kind": "step", "batch": batch, "loss": 0.5} | more


def lines(path):
    def refuse(name):
        raise ValueError(name)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_numbers_that_are_not_finite_become_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path, 0)
    sink.record(step(1, loss=math.nan, metrics={"a": math.inf, "b": [1.0, -math.inf]}))
    sink.close()
    assert lines(path) == [step(1, loss=None, metrics={"a": None, "b": [1.0, None]})]


def test_a_resumed_run_cuts_what_is_beyond_its_batch(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path, 0)
    for batch in range(1, 7):
        sink.record(step(batch))
    sink.record({"kind": "evaluation", "batch": 4})
    sink.close()
    with path.open("a") as file:
        file.write('{"kind": "step", "batch": 3')  # half a line, of a killed run
    sink = MetricsFile(path, 4)
    sink.record(step(5, loss=0.25))
    sink.close()
    assert [(r["kind"], r["batch"]) for r in lines(path)] == [
        *[("step", batch) for batch in range(1, 5)],
        ("evaluation", 4),
        ("step", 5),
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_lines_that_are_no_records_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'[]\n{"kind": "step"}\nnull\n\xff\xfe\n{"kind": "step", "batch": 1}\n')
    MetricsFile(path, 5).close()
    assert [r["batch"] for r in lines(path)] == [1]


def test_evaluations_are_readable_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    sink = MetricsFile(path, 0)
    sink.record({"kind": "evaluation", "batch": 1})
    assert len(lines(path)) == 1
    sink.close()


def test_a_full_disk_costs_the_metrics_and_not_the_run(tmp_path, caplog):
    metrics = MetricsFile(tmp_path / "metrics.jsonl", 0)
    with open("/dev/full", "w") as full:
        os.dup2(full.fileno(), metrics._file.fileno())
    sink = Forgiving(metrics)
    for batch in range(3):
        sink.record({"kind": "evaluation", "batch": batch})
    sink.close()
    assert caplog.text.count("MetricsFile cannot be written any more: No space left") == 1


def test_a_result_comes_back_and_appears_whole(tmp_path, monkeypatch):
    result = Result("done", 0, 7, {"test": {"accuracy": 0.5}}, str(tmp_path), ranks=[{"rank": 0}])
    result.write(tmp_path)
    assert read_result(tmp_path) == result
    assert json.loads((tmp_path / "result.json").read_text())["schema_version"] == 1
    with pytest.raises(TypeError):
        write_json(tmp_path / "result.json", {"bad": object()})
    assert read_result(tmp_path) == result


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"schema_version": 1}', '{"schema_version": 1, "x": 2}']
)
def test_a_result_that_cannot_be_read_is_none(tmp_path, text):
    assert read_result(tmp_path) is None
    (tmp_path / "result.json").write_text(text)
    assert read_result(tmp_path) is None


def test_the_environment_is_json():
    facts = environment()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["versions"]["torch"] != "unknown"
