"""The harness: turns, medians, ratios within a round, and what a result file says."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.bench import harness
from hpc_train.errors import HpcTrainError

positive = st.floats(min_value=1e-6, max_value=1e6)


def test_sides_take_turns_in_every_round():
    assert list(harness.alternate("ab", 3)) == [
        (0, "a"),
        (0, "b"),
        (1, "a"),
        (1, "b"),
        (2, "a"),
        (2, "b"),
    ]


def test_summary_has_median_and_extremes():
    found = harness.summary([3.0, 1.0, 10.0])
    assert found == harness.Summary(3.0, 1.0, 10.0, 3)
    assert found.spread == 3.0
    assert math.isnan(harness.summary([-1.0, 0.0, 1.0]).spread)


def test_summary_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        harness.summary([])


@given(st.lists(positive, min_size=1), positive)
def test_noise_that_a_round_shares_cancels(noise, factor):
    slow = [factor * value for value in noise]
    assert all(
        math.isclose(ratio, factor, rel_tol=1e-9) for ratio in harness.paired_ratios(slow, noise)
    )


def test_ratios_need_pairs():
    with pytest.raises(ValueError, match="zip"):
        harness.paired_ratios([1.0], [1.0, 2.0])


def test_relative_difference_is_the_largest():
    assert harness.relative_difference([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    assert harness.relative_difference([], []) == 0.0
    assert math.isnan(harness.relative_difference([1.0, math.nan, 2.0], [1.0, 1.0, 1.0]))


def test_cpu_model_is_the_kernels_name_or_the_architecture(tmp_path):
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: Foo 9000\nmodel name\t: Foo 9000\n")
    assert harness.cpu_model(facts) == "Foo 9000"
    assert harness.cpu_model(tmp_path / "none")


def test_results_can_be_read_back(tmp_path):
    path = tmp_path / "new" / "scaling.json"
    harness.write_results(path, {"benchmark": "scaling"})
    assert harness.read_results(path) == {"schema_version": 1, "benchmark": "scaling"}


def test_results_that_cannot_be_written_say_where(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HpcTrainError, match=r"cannot write the results") as caught:
        harness.write_results(tmp_path / "file" / "scaling.json", {})
    assert "--out" in caught.value.hint


def test_damaged_results_are_refused(tmp_path):
    path = tmp_path / "scaling.json"
    path.write_text("{")
    with pytest.raises(HpcTrainError, match="cannot read results"):
        harness.read_results(path)


def test_circumstances_are_json_with_date_cores_and_versions():
    found = json.loads(json.dumps(harness.circumstances()))
    assert found["date"].endswith("UTC")
    assert found["cores"] >= 1
    assert "torch" in found["versions"]


def test_a_busy_machine_is_warned_of():
    assert harness.busy_machine(0.4, 2) is None
    assert "(load average: 3.00, cores: 2)" in harness.busy_machine(3.0, 2)
