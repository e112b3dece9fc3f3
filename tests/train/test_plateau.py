"""The plateau rule: torch's own, in a run, and over a resume."""

import math

import pytest
import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from hpc_train.checkpoint import Best
from hpc_train.errors import HpcTrainError
from hpc_train.train.techniques.plateau import Plateau
from tests.train.runs import records, trainer, weights

METRICS = [1.0, 0.9, 0.9, 0.9, 0.91, 0.5, math.nan, 0.5, 0.49, 0.6, 0.7, 0.8, 0.9, 0.4, 0.4, 0.4]


def make(largest=False):
    return Plateau(Best("loss", largest), 0.5, patience=1, threshold=0.01, cooldown=1, smallest=0.1)


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize("broken", [0, 1, 4, 9])
def test_it_is_torchs_rule_also_after_a_resume(largest, broken):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    mode = "max" if largest else "min"
    theirs = ReduceLROnPlateau(optimizer, mode, 0.5, 1, 0.01, cooldown=1, min_lr=0.1)
    mine, factors = make(largest), []
    for place, value in enumerate(METRICS):
        if place == broken:
            notes, mine = mine.notes(), make(largest)
            mine.restore({}, notes)
        assert mine.evaluated(place, {"loss": value}) is None
        theirs.step(value)
        factors.append(mine.rate_factor())
        assert factors[-1] == optimizer.param_groups[0]["lr"]
    assert len(set(factors)) > 2


def test_a_run_lowers_its_rate_and_resumes_with_it(tmp_path):
    options = {
        "learning_rate": {
            "name": "plateau",
            "metric": "max accuracy",
            "threshold": 0.9,
            "patience": 0,
            "gamma": 0.5,
        },
        "optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5},
        "data": {"validation": str(tmp_path / "data")},
    }
    made = trainer(tmp_path, run={"epochs": 4, "dir": str(tmp_path / "whole")}, **options)
    made.fit()
    rates = [record["lr"] for record in records(tmp_path, "step", "whole")]
    assert rates[:5] == [0.02] * 5
    assert rates[-1] < 0.02
    trainer(tmp_path, run={"epochs": 2}, **options).fit()
    again = trainer(tmp_path, run={"epochs": 4}, **options)
    again.fit(resume=tmp_path / "run")
    assert [record["lr"] for record in records(tmp_path, "step")] == rates
    assert torch.equal(weights(again.model), weights(made.model))


def test_it_needs_validation_data_and_a_metric_that_is_measured(tmp_path):
    plateau = {"name": "plateau"}
    with pytest.raises(HpcTrainError, match=r"learning_rate.metric needs data.validation"):
        trainer(tmp_path, learning_rate=plateau).fit()
    data = {"validation": str(tmp_path / "data")}
    with pytest.raises(HpcTrainError, match='unknown metric "acc", known: accuracy, loss'):
        trainer(tmp_path, learning_rate=plateau | {"metric": "max acc"}, data=data).fit()
