"""How a network computes: again in backward, channels last, compiled; the same results."""

import copy
import logging
import os
import shutil

import pytest
import torch
import torch._inductor.config as inductor
from torch import nn

from hpc_train.errors import ConfigError, HpcTrainError, SetupError
from hpc_train.train.activations import checkpoint_activations
from hpc_train.train.compilation import check_compiler, compile_network
from hpc_train.train.device import limit_gpu_memory, peak_bytes, tell_allocator
from hpc_train.train.memory_format import channels_last
from tests.train.runs import records, result, trainer, weights


class Block(nn.Module):
    """Draws random numbers, and has running statistics."""

    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x + self.drop(torch.tanh(self.norm(self.linear(x))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 6)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def chain():
    return nn.Sequential(
        nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 2)
    )


def passed(model):
    """Gradients and buffers after two batches."""
    inputs = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(8, 3)
    for seed in range(2):
        torch.manual_seed(seed)
        model(inputs).square().sum().backward()
    tensors = [p.grad for p in model.parameters()] + list(model.buffers())
    return [tensor.clone() for tensor in tensors]


@pytest.mark.parametrize(
    ("build", "which", "blocks"),
    [
        (Net, "auto", ["blocks.0", "blocks.1", "blocks.2"]),
        (Net, ["blocks.1", "blocks.1.norm"], ["blocks.1"]),
        (chain, "auto", [""]),
    ],
)
def test_computing_again_gives_the_same_gradients_and_statistics(build, which, blocks):
    torch.manual_seed(0)
    plain = build().double()
    spare = copy.deepcopy(plain)
    assert checkpoint_activations(spare, which) == blocks
    assert list(spare.state_dict()) == list(plain.state_dict())
    assert all(map(torch.equal, passed(spare), passed(plain)))


def test_blocks_are_run_twice_and_a_copy_is_a_copy():
    model = Net().double()
    checkpoint_activations(model, ["blocks.0", "blocks.2"])
    twin = copy.deepcopy(model)
    passed(model)
    assert [block.calls for block in model.blocks] == [4, 2, 4]
    assert [block.calls for block in twin.blocks] == [0, 0, 0]
    with torch.no_grad():
        model(torch.zeros(2, 3, dtype=torch.float64))
    assert [block.calls for block in model.blocks] == [5, 3, 5]


def test_less_is_kept():
    def kept(model):
        sizes = []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(torch.zeros(64, 3))
        return sum(sizes)

    plain, spare = Net(), Net()
    checkpoint_activations(spare, "auto")
    assert kept(spare) < 0.6 * kept(plain)


def test_patterns_that_name_nothing():
    with pytest.raises(ConfigError, match=r"must name modules.*\n.*such as stem, blocks, blocks.0"):
        checkpoint_activations(Net(), ["block.*"])
    with pytest.raises(ConfigError, match="must name modules"):
        checkpoint_activations(nn.Linear(2, 2), "auto")


def test_images_reach_the_network_with_their_channels_last():
    seen = []

    class Images(nn.Module):
        def forward(self, x):
            images = x["image"] if isinstance(x, dict) else x
            seen.append(images.is_contiguous(memory_format=torch.channels_last))
            return images.sum()

    model = Images()
    image = torch.randn(2, 3, 4, 4)
    channels_last(model)
    assert float(model(image)) == pytest.approx(float(image.sum()), rel=1e-4)
    copy.deepcopy(model)({"image": image, "flat": torch.zeros(2, 3)})
    assert seen == [True, True]


@pytest.mark.parametrize(
    "device", [{"channels_last": True}, {"activation_checkpointing": "auto"}, {"compile": True}]
)
def test_a_run_computes_the_same(tmp_path, device):
    if "compile" in device and not shutil.which(os.environ.get("CXX", "g++")):
        pytest.skip("no C++ compiler")
    options = {"optimizer": {"name": "sgd", "lr": 0.02, "momentum": 0.5}}
    run = {"epochs": None, "steps": 3}
    plain = trainer(tmp_path, run={**run, "dir": str(tmp_path / "plain")}, **options)
    plain.fit()
    made = trainer(tmp_path, device={"name": "cpu", "threads": 1, **device}, run=run, **options)
    with inductor.patch(compile_threads=1):  # starting workers takes longer
        made.fit()
    assert list(made.model.state_dict()) == list(plain.model.state_dict())
    assert torch.allclose(weights(made.model), weights(plain.model), rtol=1e-10, atol=1e-12)
    assert records(tmp_path, "step")[-1]["peak_memory_bytes"] > 2**20
    assert result(tmp_path)["ranks"][0]["peak_memory_bytes"] > 2**20


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    broken = {"cpp.cxx": (str(tmp_path / "no-compiler"),), "force_disable_caches": True}
    torch._dynamo.reset()
    with inductor.patch(broken), pytest.raises(SetupError) as caught:
        check_compiler(torch.device("cpu"))
    first, hint = caught.value.lines()
    assert first.startswith("device.compile: torch.compile does not work here (")
    assert "device.compile=false" in hint
    torch._dynamo.reset()


def test_parts_of_a_network_without_a_forward_are_compiled(monkeypatch):
    monkeypatch.setattr("hpc_train.train.compilation.check_compiler", lambda device: None)
    model = nn.Module()
    model.left, model.right = nn.Linear(2, 2), nn.Linear(2, 2)
    compile_network(model, torch.device("cpu"))
    assert model._compiled_call_impl is None
    assert model.left._compiled_call_impl is not None
    assert model.right._compiled_call_impl is not None


def test_memory(monkeypatch, caplog):
    assert 2**20 < peak_bytes(torch.device("cpu")) < 2**44
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    tell_allocator(None)
    assert "PYTORCH_CUDA_ALLOC_CONF" not in os.environ
    monkeypatch.setenv("PYTORCH_CUDA_ALLOC_CONF", "")
    tell_allocator("expandable_segments:True")
    assert os.environ["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    limit_gpu_memory(None, torch.device("cpu"))
    assert not caplog.text
    with caplog.at_level(logging.WARNING):
        limit_gpu_memory(0.5, torch.device("cpu"))
    assert "no effect on the CPU" in caplog.text


def test_a_run_that_cannot_recompute_says_what_to_name(tmp_path):
    with pytest.raises(HpcTrainError, match="checkpointing: it must name modules"):
        trainer(tmp_path, device={"name": "cpu", "activation_checkpointing": ["x*"]}).fit()
