"""Averages of weights: torch's own, in evaluations, in the finished model, over a resume."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hpc_train.optim import Settings
from hpc_train.plan import Course
from hpc_train.strategies import Learner
from hpc_train.train.techniques import averaging
from tests.train.runs import trainer, weights
from tests.train.techniques.test_weights import config

COURSE = Course(33, 7)  # 5 batches an epoch


def train(technique, model, learner, num_batches, also=lambda number: None):
    generator = torch.Generator().manual_seed(0)
    for batch in COURSE.batches(0, num_batches):
        technique.begin(batch)
        learner.zero()
        for parameter in model.parameters():
            parameter.grad.copy_(torch.randn(parameter.shape, generator=generator))
        learner.update(1.0)
        technique.updated(learner)
        also(batch.number)


def made(**regularization):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    learner = Learner("all", model.named_parameters(), "sgd", Settings(lr=0.1))
    technique = averaging.make(config(**regularization), 20, COURSE.num_samples, [learner])
    return technique, model, learner


def averaged(technique, model):
    with technique.evaluating(final=False):
        return weights(model).clone()


def test_ema_is_torchs():
    technique, model, learner = made(ema_decay=0.7)
    reference = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.7))
    train(technique, model, learner, 6, lambda number: reference.update_parameters(model))
    plain = weights(model).clone()
    found = averaged(technique, model)
    torch.testing.assert_close(found, weights(reference.module))
    assert not torch.allclose(found, plain)
    assert torch.equal(weights(model), plain)  # training goes on with them
    technique.finish()
    assert torch.equal(weights(model), found)


@pytest.mark.parametrize(
    ("every", "after"), [("1 epoch", [14, 19]), ("3 steps", [11, 14, 17]), ("2 epochs", [19])]
)
def test_swa_is_the_mean_of_the_weights_that_are_due(every, after):
    technique, model, learner = made(swa_start=0.5, swa_every=every)
    seen = {}
    before = averaged(technique, model)
    assert torch.equal(before, weights(model))  # nothing is averaged yet
    train(technique, model, learner, 20, lambda n: seen.update({n: weights(model).clone()}))
    expected = torch.stack([seen[number] for number in after]).mean(0)
    torch.testing.assert_close(averaged(technique, model), expected)


def test_restored_goes_on_as_if_nothing_had_happened():
    technique, model, learner = made(ema_decay=0.7)
    train(technique, model, learner, 3)
    other, _, _ = made(ema_decay=0.7)
    other.restore(technique.tensors(), technique.notes())
    with other.evaluating(final=False):
        assert other.notes() == technique.notes()
    for name, tensor in other.tensors().items():
        assert torch.equal(tensor, technique.tensors()[name])


@pytest.mark.parametrize("regularization", [{"ema_decay": 0.8}, {"swa_start": 0.3}])
def test_a_run_is_evaluated_with_the_average_and_resumed_is_uninterrupted(regularization, tmp_path):
    settings = {
        "regularization": regularization,
        "data": {"test": str(tmp_path / "data")},
        "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.5},
    }
    whole = trainer(tmp_path, run={"dir": str(tmp_path / "whole")}, **settings)
    found = whole.fit().metrics["test"]
    plain = trainer(
        tmp_path, run={"dir": str(tmp_path / "plain")}, **settings | {"regularization": {}}
    )
    assert plain.fit().metrics["test"]["loss"] != found["loss"]
    assert not torch.allclose(weights(plain.model), weights(whole.model))
    # the model that is left is the one that was evaluated
    again = trainer(
        tmp_path,
        whole.model,
        run={"dir": str(tmp_path / "again"), "epochs": None, "steps": 1},
        **settings | {"regularization": {}, "optimizer": {"name": "sgd", "lr": 0.0}},
    )
    assert again.fit().metrics["test"] == found
    trainer(tmp_path, run={"epochs": None, "steps": 7}, **settings).fit()
    resumed = trainer(tmp_path, **settings)
    assert resumed.fit(resume=tmp_path / "run").metrics["test"] == found
    assert torch.equal(weights(resumed.model), weights(whole.model))
