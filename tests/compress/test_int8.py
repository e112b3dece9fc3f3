"""int8 networks: the ranges of training are theirs, and plain PyTorch runs their files."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from hpc_train.compress import find_quantized, int8, with_fake_quantization
from hpc_train.compress.export import export
from hpc_train.compress.fake_quantize import round_inputs, round_weights
from hpc_train.errors import UsageError
from tests.compress.networks import NETWORKS, example, make


def trained(name):
    """A network whose ranges were found, as training finds them."""
    model = with_fake_quantization(make(name)).train()
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.modules.batchnorm._BatchNorm)):
            module.eval()
    model(example(64))
    for layer in find_quantized(model):
        layer.move(*layer.seen)
        layer.is_rounding = True
    return model.eval()


def ranges(model):
    return {
        name: (float(layer.input_low), float(layer.input_high))
        for name, layer in model.named_modules()
        if hasattr(layer, "input_low")
    }


def test_the_ranges_of_training_are_those_of_int8():
    model, plain = trained("plain"), make("plain")
    for layer in find_quantized(model):
        layer.input_high.div_(2)
    found = ranges(model)
    converted = int8.static(plain, [example(64)], found)
    # a layer gives what the next one takes, also where pooling or dropout is between them
    for layer, follower in (("0", "3"), ("7", "10")):
        scale = (found[follower][1] - found[follower][0]) / 127
        assert converted.get_submodule(layer).scale == pytest.approx(scale, rel=1e-5)
    scale = (found["0"][1] - found["0"][0]) / 127
    assert float(getattr(converted, "0_input_scale_0")) == pytest.approx(scale, rel=1e-5)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_what_training_simulates_is_what_int8_computes(name):
    model, plain = trained(name), make(name)
    converted = int8.static(plain, [example(64)], ranges(model))
    with torch.no_grad():
        simulated, real = model(example(64)), converted(example(64))
    assert (real - simulated).abs().mean() < 3 * simulated.abs().max() / 127


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_static_is_near(name):
    model = make(name)
    converted = int8.static(model, [example(64)])
    outputs = model(example(64))
    assert (converted(example(64)) - outputs).abs().mean() < 0.05 * outputs.abs().max()
    kinds = {type(module).__module__ for module in converted.modules()}
    assert any("quantized" in kind for kind in kinds)


def test_dynamic_is_near_and_wants_linear_layers():
    model = make("plain")
    outputs = model(example(64))
    assert (int8.dynamic(model)(example(64)) - outputs).abs().max() < 0.05 * outputs.abs().max()
    with pytest.raises(UsageError, match="linear layers"):
        int8.dynamic(nn.Conv2d(1, 1, 1))
    with pytest.raises(UsageError, match="samples"):
        int8.static(model, [])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_torchs(dtype):
    weights = torch.randn(4, 3, 3, 3)
    scales = weights.flatten(1).abs().amax(1) / 127
    zeros = torch.zeros(4, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weights, scales, zeros, 0, -127, 127)
    found = round_weights(weights.to(dtype))
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-5, atol=1e-6)
    low, high = torch.tensor(-1.0), torch.tensor(2.0)
    inputs = torch.linspace(-3, 3, 1001)
    scale = 3 / 127
    expected = torch.fake_quantize_per_tensor_affine(inputs, scale, round(1 / scale), 0, 127)
    near = (round_inputs(inputs, low, high) - expected).abs()
    assert near.max() < scale * 1.01  # a tie may fall to the other side
    assert (near > 1e-6).double().mean() < 0.01


def test_gradients_pass_where_inputs_are_inside():
    inputs = torch.tensor([-5.0, 0.3, 5.0], requires_grad=True)
    round_inputs(inputs, torch.tensor(-1.0), torch.tensor(1.0)).sum().backward()
    assert inputs.grad.tolist() == [0, 1, 0]
    weights = torch.randn(2, 3, requires_grad=True)
    round_weights(weights).sum().backward()
    assert weights.grad.eq(1).all()


@pytest.mark.parametrize("kind", ["float", "static", "dynamic"])
def test_files_are_loaded_by_plain_pytorch(kind, tmp_path):
    model = make("plain")
    if kind != "float":
        model = int8.static(model, [example(8)]) if kind == "static" else int8.dynamic(model)
    size = export(model, example(), tmp_path / "model.pt")
    assert size == (tmp_path / "model.pt").stat().st_size
    torch.save({"x": example(5), "y": model(example(5)).detach()}, tmp_path / "io.pt")
    script = (
        "import sys, torch\n"
        "sys.modules['hpc_train'] = None\n"
        "io = torch.load('io.pt')\n"
        "y = torch.jit.load('model.pt')(io['x'])\n"
        "torch.testing.assert_close(y, io['y'])\n"
    )
    run = [sys.executable, "-W", "ignore", "-c", script]
    ended = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr


def test_a_file_that_computes_something_else_is_not_left_behind(tmp_path):
    class Fickle(nn.Module):
        def forward(self, x):
            return x * (1 if len(x) > 1 else 2)

    with pytest.raises(UsageError, match="must compute what the model does"):
        export(Fickle(), example(), tmp_path / "model.pt")
    assert list(tmp_path.iterdir()) == []
