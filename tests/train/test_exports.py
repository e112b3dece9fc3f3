"""Exported networks: plain PyTorch loads them, without this package, for any number of samples."""

import importlib
import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from hpc_train.cli import _main
from hpc_train.errors import DataError, SetupError, UsageError
from hpc_train.train.exports import export, onnx, program
from tests.train.runs import trainer

PLAIN = """\
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hpc_train":
            raise ImportError("blocked")

sys.meta_path.insert(0, Blocked())
import torch
data = torch.load("inputs.pt")
{load}
assert not any(name.startswith("hpc_train") for name in sys.modules)
torch.save([model(data["x"][:n]).detach() for n in (1, 5)], "outputs.pt")
"""
FOLDER = """
from safetensors.torch import load_file
model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3, 4), torch.nn.Tanh(),
                            torch.nn.Dropout(), torch.nn.Linear(4, 7)).double().eval()
model.load_state_dict(load_file("model/model.safetensors"))
"""
LOADERS = {
    "model.pt2": 'model = torch.export.load("model.pt2").module()',
    "model.pt": 'model = torch.jit.load("model.pt")',
    "model.onnx": "import onnx.reference\n"
    'session = onnx.reference.ReferenceEvaluator("model.onnx")\n'
    'model = lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])',
    "model": FOLDER,
}


def run(tmp_path, **sections):
    made = trainer(
        tmp_path,
        run={"epochs": 1},
        optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.5},
        **sections,
    )
    made.fit()
    return made.model.eval()


@pytest.mark.parametrize("name", LOADERS)
def test_plain_torch_computes_the_same(tmp_path, name):
    model = run(tmp_path, regularization={"ema_decay": 0.5})
    out = tmp_path / name
    assert _main(["export", str(tmp_path / "run"), str(out)]) == 0
    inputs = torch.linspace(-1, 1, 15, dtype=torch.float64).reshape(5, 3)
    torch.save({"x": inputs}, tmp_path / "inputs.pt")
    script = tmp_path / "plain.py"
    script.write_text(PLAIN.replace("{load}", LOADERS[name]))
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", script.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    found = torch.load(tmp_path / "outputs.pt")
    for count, output in zip((1, 5), found, strict=True):
        assert torch.allclose(output, model(inputs[:count]), rtol=1e-10)
    if name == "model":
        told = json.loads((out / "model.json").read_text())
        assert told["inputs"] == {"x": {"shape": [3], "scale": 0.01}}
        assert told["dtype"] == "float64"


class Branches(nn.Module):
    """What it computes depends on values: a trace would be wrong for other ones."""

    def forward(self, x):
        return x if len(x) > 1 else x * 2


def test_a_file_that_computes_something_else_is_not_left(tmp_path):
    with pytest.raises(UsageError, match="computes something else"):
        export(Branches(), torch.ones(2, 3), tmp_path / "model.pt")
    assert not list(tmp_path.iterdir())
    with pytest.raises(DataError, match="cannot write"):
        export(nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "none" / "model.pt2")


def test_formats_that_are_unknown_or_lack_a_package(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r'unknown format ".bin", known: .onnx, .pt, .pt2'):
        export(nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "model.bin")

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(SetupError, match="needs the package onnx"):
        onnx.write(nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "model.onnx")


def test_any_number_of_samples_goes_through_a_program(tmp_path):
    program.write(nn.Linear(3, 2), torch.ones(2, 3), tmp_path / "model.pt2")
    assert program.read(tmp_path / "model.pt2")(torch.ones(9, 3)).shape == (9, 2)
