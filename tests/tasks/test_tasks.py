"""Tasks: torch's own losses per sample, and clear errors for what does not fit."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import ConfigError, DataError, HpcTrainError
from hpc_train.tasks import Classification, Losses, Regression, TensorBatch, summarized
from hpc_train.tasks.task import Supervised, check_losses

SCORES = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5], [0.1, 0.2, 0.3], [3.0, 1.0, 1.0]])
LABELS = torch.tensor([0, 2, 2, 1])


def batch(inputs, target):
    return TensorBatch({"x": inputs}, {"y": target}, torch.arange(len(inputs)))


def test_classification_is_cross_entropy_and_accuracy():
    losses = Classification().losses(nn.Identity(), batch(SCORES, LABELS))
    assert torch.equal(losses.values, functional.cross_entropy(SCORES, LABELS, reduction="none"))
    assert losses.weights is None
    assert float(losses.sums["accuracy"]) == 2


def test_class_weights_give_torchs_weighted_mean():
    weights = [1.0, 0.5, 4.0]
    losses = Classification(weights).losses(nn.Identity(), batch(SCORES, LABELS))
    mean = (losses.values * losses.weights).sum() / losses.weights.sum()
    expected = functional.cross_entropy(SCORES, LABELS, weight=torch.tensor(weights))
    assert float(mean) == pytest.approx(float(expected), rel=1e-6)
    assert float(losses.sums["accuracy"]) == 5  # samples 0 and 2 are right, of weights 1 and 4


@pytest.mark.parametrize("weights", [[], [1, -1], [0, 0.0], "abc", 3, [1, "2"], [float("inf")]])
def test_class_weights_must_be_weights(weights):
    with pytest.raises(ConfigError, match=r"task\.class_weights must be a list of numbers >= 0"):
        Classification(weights)


@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0] * 4])
def test_class_weights_must_be_as_many_as_classes(weights):
    with pytest.raises(ConfigError, match="one weight for each of the 3 classes"):
        Classification(weights).losses(nn.Identity(), batch(SCORES, LABELS))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_must_be_classes(label):
    labels = LABELS.clone()
    labels[1] = label
    with pytest.raises(DataError, match=rf"label must lie in \[0, 3\) \(label: {label}\)"):
        Classification().losses(nn.Identity(), batch(SCORES, labels))


@pytest.mark.parametrize(
    ("scores", "labels"),
    [(SCORES, LABELS[:, None]), (SCORES[:, 0], LABELS), (SCORES[..., None], LABELS)],
)
def test_classification_needs_one_label_per_sample(scores, labels):
    with pytest.raises(DataError, match="classification needs scores of shape"):
        Classification().losses(nn.Identity(), batch(scores, labels))


@pytest.mark.parametrize(
    ("predicted", "target"),
    [((4,), (4,)), ((4, 1), (4,)), ((4, 3), (4, 3)), ((4, 2, 5), (4, 2, 5))],
)
def test_regression_is_mean_squared_and_absolute_error(predicted, target):
    predicted, target = torch.randn(predicted), torch.randn(target)
    losses = Regression().losses(nn.Identity(), batch(predicted, target))
    error = predicted.reshape(4, -1) - target.reshape(4, -1)
    assert torch.allclose(losses.values, error.square().mean(1))
    assert float(losses.sums["mae"]) == pytest.approx(float(error.abs().mean(1).sum()))


@pytest.mark.parametrize(
    ("predicted", "target"), [((4, 2), (4,)), ((4, 2), (4, 3)), ((4,), (4, 1))]
)
def test_regression_never_broadcasts(predicted, target):
    with pytest.raises(DataError, match="predictions must have the shape of their targets"):
        Regression().losses(nn.Identity(), batch(torch.zeros(predicted), torch.zeros(target)))


class Both(nn.Module):
    def forward(self, inputs):
        return inputs["a"] + inputs["b"] if isinstance(inputs, dict) else (inputs, inputs)


def test_several_inputs_come_as_a_dictionary_and_several_outputs_are_refused():
    many = TensorBatch({"a": SCORES, "b": SCORES}, {"y": LABELS}, torch.arange(len(SCORES)))
    assert torch.equal(many.through(Both()), 2 * SCORES)
    with pytest.raises(HpcTrainError, match=r"a model that returns one tensor.*tuple"):
        batch(SCORES, LABELS).through(Both())


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        (Losses(torch.tensor(1.0)), r"losses of a task must have shape \(4,\)"),
        (Losses(torch.zeros(4, 1)), r"shape: \(4, 1\)"),
        (Losses(torch.zeros(4), torch.ones(1)), "weights of a task must have shape"),
        (Losses(torch.zeros(4), sums={"hits": torch.zeros(4, 1)}), r"sums of a task .*\(4, 1\)"),
        (Losses(torch.zeros(4), sums={"hits": 3.0}), r"hits: float"),
        (torch.zeros(4), "must be a Losses object"),
    ],
)
def test_losses_of_another_shape_are_refused(losses, message):
    with pytest.raises(HpcTrainError, match=message):
        check_losses(losses, 4)


def test_a_supervised_task_is_its_only_phase_and_trains_everything():
    task = Supervised()
    model = nn.Linear(2, 2)
    assert task.phases == [task]
    assert [name for name, _ in task.parameters(model)] == ["weight", "bias"]
    with pytest.raises(TypeError, match="must define losses"):
        task.losses(model, batch(SCORES, LABELS))


def test_metrics_are_means_over_the_weights_and_nan_without_any():
    class Plain(Supervised):
        metrics = ("hits",)

    assert summarized(Plain(), 4.0, 10.0, {"hits": 3.0}) == {"hits": 0.75}
    assert math.isnan(summarized(Plain(), 0.0, 0.0, {"hits": 0.0})["hits"])
