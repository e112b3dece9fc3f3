"""Networks: shapes in and out, and what their arguments may be."""

import pytest
import torch

from hpc_train.errors import ConfigError
from hpc_train.models import MODELS, cnn, mlp


@pytest.mark.parametrize("name", ["cnn", "mlp", "resnet"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (1, 1, 1), (2, 3, 1)])
def test_scores_of_every_class_for_any_image(name, shape):
    model = MODELS[name](shape, 7).eval()
    assert model(torch.zeros(4, *shape)).shape == (4, 7)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4, 5)])
def test_mlp_takes_inputs_of_any_shape(shape):
    assert mlp(shape, 3, hidden=[])(torch.zeros(2, *shape)).shape == (2, 3)


def test_cnn_needs_images():
    with pytest.raises(ConfigError, match=r"shape \(channels, height, width\)") as caught:
        cnn((10,), 3)
    assert "mlp" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("mlp", {"hidden": 128}, r"model.hidden must be a list of positive integers .*: 128"),
        ("mlp", {"hidden": [8, 0]}, r"\[8, 0\]"),
        ("mlp", {"hidden": "64"}, "'64'"),
        ("mlp", {"dropout": 1.5}, r"model.dropout must lie in \[0, 1\) .*: 1.5"),
        ("mlp", {"activation": "rulu"}, 'unknown activation "rulu".*did you mean .relu.'),
        ("cnn", {"channels": 32}, "model.channels must be a list"),
        ("cnn", {"hidden": [128]}, "model.hidden must be a positive integer"),
        ("cnn", {"pool": "maximum"}, "unknown pool"),
        ("cnn", {"num_classes": 0}, "model.num_classes must be a positive integer"),
    ],
)
def test_wrong_arguments_are_errors_of_the_configuration(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        MODELS[name](**({"input_shape": (1, 8, 8), "num_classes": 3} | arguments))
