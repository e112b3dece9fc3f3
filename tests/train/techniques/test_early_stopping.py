"""Early stopping: the rule, the best weights, the end of the run, and that a resume respects it."""

import math

import pytest
import torch

from hpc_train.checkpoint import Store, newest
from hpc_train.errors import ConfigError
from hpc_train.train.techniques.early_stopping import Patience
from hpc_train.train.weights import final_weights
from hpc_train.world import RankError
from tests.groups import Solo
from tests.train.runs import records, result, trainer, weights


def bads(values, **rule):
    seen, found = Patience(), []
    for number, value in enumerate(values):
        seen = seen.after(value, number, **{"larger": False, "min_delta": 0.0} | rule)
        found.append(seen.bad)
    return found


def test_the_rule():
    assert bads([3, 2, 2, 1, 5]) == [0, 0, 1, 0, 1]
    assert bads([3, 2, 2, 1, 5], larger=True) == [0, 1, 2, 3, 0]
    assert bads([3, 2.9, 2.8, 2.4], min_delta=0.5) == [0, 1, 2, 0]
    assert bads([math.nan, 2, math.nan, math.inf, 1]) == [1, 0, 1, 2, 0]
    seen = Patience().after(1.0, 5, larger=False, min_delta=0.0)
    assert seen.after(2.0, 5, larger=False, min_delta=0.0) is seen  # repeated after a resume


def settings(tmp_path, **early_stopping):
    """A run whose validation loss falls, and then rises: its rate is far too high."""
    data = str(tmp_path / "data")
    return {
        "data": {"train": f"{data}[:9]", "validation": f"{data}[9:]", "test": f"{data}[9:]"},
        "optimizer": {"name": "sgd", "lr": 0.5},
        "early_stopping": {"metric": "min loss", "patience": 2} | early_stopping,
    }


def run(tmp_path, name, *, resume=False, epochs=30, **early_stopping):
    folder = tmp_path / name
    made = trainer(
        tmp_path,
        run={"epochs": epochs, "dir": str(folder), "evaluate": "1 epoch"},
        **settings(tmp_path, **early_stopping),
    )
    return made.fit(resume=folder if resume else None), made


def losses(tmp_path, name, data="validation"):
    rows = records(tmp_path, "evaluation", name)
    return [r["metrics"]["loss"] for r in rows if r["data"] == data]


def test_a_run_ends_when_patience_is_over_with_its_best_weights(tmp_path):
    found, made = run(tmp_path, "run")
    seen = losses(tmp_path, "run")
    assert 3 <= len(seen) < 30
    assert min(seen) == seen[-3] < min(seen[-2:])
    assert found.status == "done"
    assert found.metrics["test"]["loss"] == min(seen)
    last, _ = run(tmp_path, "last", restore_best=False)
    assert last.metrics["test"]["loss"] == seen[-1]
    (event,) = records(tmp_path, "event")
    assert event["event"] == "ended"
    assert "no better in 2 evaluations" in event["text"]
    assert torch.isfinite(weights(made.model)).all()


def test_an_ended_run_is_complete_unless_patience_grows(tmp_path):
    run(tmp_path, "run")
    ended = len(losses(tmp_path, "run"))
    with pytest.raises(ConfigError, match="complete already: it ended at batch"):
        run(tmp_path, "run", resume=True)
    run(tmp_path, "run", resume=True, patience=4)
    run(tmp_path, "whole", patience=4)
    assert losses(tmp_path, "run") == losses(tmp_path, "whole")
    assert len(losses(tmp_path, "run")) > ended


def test_one_that_ended_without_a_result_gets_it(tmp_path):
    found, _ = run(tmp_path, "run")
    (tmp_path / "run" / "result.json").unlink()
    again, _ = run(tmp_path, "run", resume=True)
    assert again.metrics["test"] == found.metrics["test"]
    assert result(tmp_path)["status"] == "done"


def test_resumed_equals_uninterrupted(tmp_path):
    whole, made = run(tmp_path, "whole")
    run(tmp_path, "run", epochs=2)
    resumed, other = run(tmp_path, "run", resume=True)
    assert losses(tmp_path, "run") == losses(tmp_path, "whole")
    assert resumed.metrics == whole.metrics
    assert torch.equal(weights(other.model), weights(made.model))


@pytest.mark.parametrize("regularization", [{}, {"ema_decay": 0.5}])
def test_the_checkpoint_says_what_the_model_is(tmp_path, regularization):
    """The best weights, which are averages where the run keeps some."""
    sections = settings(tmp_path)
    made = trainer(tmp_path, run={"epochs": 30}, regularization=regularization, **sections)
    found = made.fit()
    seen = losses(tmp_path, "run")
    assert found.metrics["test"]["loss"] == min(seen) < seen[-1]
    saved = newest(Store(tmp_path / "run" / "checkpoints"), Solo())
    final = final_weights(saved)
    assert final.keys() == made.model.state_dict().keys()
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(final[name], tensor)
        assert not torch.equal(final[name], saved.tensors[f"model/{name}"])


def test_it_needs_a_metric_that_is_measured(tmp_path):
    with pytest.raises(RankError, match='unknown metric "f7"'):
        run(tmp_path, "run", metric="min f7")
    made = trainer(tmp_path, early_stopping={"metric": "min loss"})
    with pytest.raises(RankError, match=r"early_stopping.metric needs data.validation"):
        made.fit()
