"""Ensembles: groups of ranks, averaged predictions, and what a resume leaves alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import ConfigError
from hpc_train.tasks import Classification, Regression
from hpc_train.train.ensemble import group_of
from tests.train.runs import result, trainer


@pytest.mark.parametrize(("size", "members"), [(1, 5), (2, 5), (3, 2), (7, 3), (8, 8), (9, 4)])
def test_ranks_are_divided_evenly(size, members):
    found = [group_of(rank, size, members) for rank in range(size)]
    groups = found[0][1]
    assert groups == min(size, members)
    assert all(count == groups for _, count in found)
    numbers = [number for number, _ in found]
    assert numbers == sorted(numbers)
    counts = [numbers.count(group) for group in range(groups)]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 1


def test_predictions_are_averaged_as_the_task_says():
    scores = torch.randn(3, 6, 4, dtype=torch.float64)
    expected = scores.softmax(-1).mean(0)
    torch.testing.assert_close(Classification().combine(scores).softmax(-1), expected)
    torch.testing.assert_close(Classification().combine(scores).exp(), expected)
    torch.testing.assert_close(Regression().combine(scores), scores.mean(0))


def fit(tmp_path, *, resume=False, **sections):
    made = trainer(
        tmp_path,
        ensemble={"members": 3},
        data={"test": str(tmp_path / "data")},
        **sections,
    )
    return made.fit(resume=tmp_path / "run" if resume else None), made


def test_members_are_runs_of_their_own_and_their_average_is_evaluated(tmp_path):
    found, made = fit(tmp_path)
    assert result(tmp_path)["status"] == "done"
    names = [f"member-{n:02d}" for n in range(3)]
    own = [result(tmp_path, f"run/{name}")["metrics"]["test"] for name in names]
    assert len({metrics["loss"] for metrics in own}) == 3
    assert [found.metrics[f"test of member {n}"] for n in range(3)] == own
    assert found.metrics["test"]["loss"] < sum(m["loss"] for m in own) / 3  # Jensen's inequality
    x = torch.rand(5, 3, dtype=torch.float64)
    members = torch.stack([member(x) for member in made.model.members])
    expected = members.softmax(-1).mean(0)
    torch.testing.assert_close(functional.softmax(made.model(x), -1), expected)


def test_a_resume_trains_what_is_missing(tmp_path):
    found, _ = fit(tmp_path)
    (tmp_path / "run" / "result.json").unlink()
    (tmp_path / "run" / "member-01" / "result.json").unlink()
    before = (tmp_path / "run" / "member-00" / "result.json").stat().st_mtime_ns
    again, _ = fit(tmp_path, resume=True)
    assert again.metrics == found.metrics
    assert (tmp_path / "run" / "member-00" / "result.json").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="complete already"):
        fit(tmp_path, resume=True)


def test_a_network_of_the_callers_own_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="needs a builder"):
        trainer(tmp_path, nn.Linear(3, 7), ensemble={"members": 2}).fit()
