"""Trained models on data sets: every sample once, in order, from the checkpoint that was named."""

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from hpc_train.cli import _main
from hpc_train.data.arrays import Rows
from hpc_train.errors import ConfigError, DataError
from hpc_train.tasks import TensorBatch
from hpc_train.train.features import Features
from hpc_train.train.trained import open_run
from tests.train.runs import trainer

RUN = {"epochs": None, "steps": 6, "evaluate": "2 steps"}


def trained(tmp_path, **sections):
    """A run with validation data; its model at the end, and the inputs of its data."""
    folder = tmp_path / "data"
    sections.setdefault("optimizer", {"name": "sgd", "lr": 0.02, "momentum": 0.5})
    sections["data"] = {"validation": str(folder)}
    made = trainer(tmp_path, run=RUN, checkpoint={"every": "2 steps", "keep_last": 3}, **sections)
    result = made.fit()
    parts = [h5py.File(path)["x"][:] for path in sorted(folder.glob("*.h5"))]
    inputs = torch.from_numpy(np.concatenate(parts)).double() * 0.01
    return made.model.eval(), inputs, result


def command(tmp_path, *words):
    return _main([words[0], str(tmp_path / "run"), str(tmp_path / "data"), *words[1:]])


def test_predictions_are_the_models_in_order(tmp_path):
    model, inputs, _ = trained(tmp_path)
    out = tmp_path / "out.h5"
    assert command(tmp_path, "predict", str(out)) == 0
    with torch.no_grad():
        scores = model(inputs)
    with h5py.File(out) as file:
        assert sorted(file) == ["class", "probability"]
        assert np.array_equal(file["class"][:], scores.argmax(1).numpy())
        np.testing.assert_allclose(file["probability"][:], scores.softmax(1).numpy(), rtol=1e-12)
        assert file.attrs["step"] == 6
    assert command(tmp_path, "predict", str(out), "--raw") == 0
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["output"][:], scores.numpy(), rtol=1e-12)


def test_an_earlier_checkpoint_is_another_model(tmp_path):
    trained(tmp_path)
    outs = [tmp_path / "last.h5", tmp_path / "early.h5"]
    for out, which in zip(outs, ("last", "step-2"), strict=True):
        assert command(tmp_path, "predict", str(out), "--checkpoint", which) == 0
    last, early = (h5py.File(out)["probability"][:] for out in outs)
    assert np.abs(last - early).max() > 1e-6
    assert open_run(tmp_path / "run", "step-2").step == 2


@pytest.mark.parametrize("which", ["best", "step-3", "newest"])
def test_checkpoints_that_are_not_there(tmp_path, which, capsys):
    trained(tmp_path)
    out = tmp_path / "out.h5"
    assert command(tmp_path, "predict", str(out), "--checkpoint", which) == 1
    assert "hint: " in capsys.readouterr().err
    assert not list(tmp_path.glob("*out.h5*"))


def test_evaluations_repeat_those_of_the_run_with_averaged_weights(tmp_path, capsys):
    _, _, result = trained(tmp_path, regularization={"ema_decay": 0.8})
    assert command(tmp_path, "evaluate") == 0
    assert f"loss {result.metrics['validation']['loss']:.6g}" in capsys.readouterr().out


def test_features_are_what_the_last_layer_takes(tmp_path):
    model, inputs, _ = trained(tmp_path)
    out = tmp_path / "out.h5"
    assert command(tmp_path, "features", str(out)) == 0
    with torch.no_grad():
        hidden = model[:-1](inputs)
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["feature"][:], hidden.numpy(), rtol=1e-12)
    assert command(tmp_path, "features", str(out), "--layer", "1") == 0
    with torch.no_grad():
        first = model[:2](inputs)
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["feature"][:], first.numpy(), rtol=1e-12)


def batch(count):
    return TensorBatch({"x": torch.ones(count, 3)}, {}, torch.arange(count))


def test_an_autoencoder_gives_its_codes_and_layers_must_give_rows():
    class Coder(nn.Linear):
        def encode(self, x):
            return x[:, :2] * 7

    assert torch.equal(Features(Coder(3, 3), None)(batch(4))["feature"], torch.full((4, 2), 7.0))
    with pytest.raises(ConfigError, match="no hidden layer"):
        Features(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), None)(batch(4))
    with pytest.raises(ConfigError, match='unknown layer "9", known: 0, 1'):
        Features(nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), "9")


def test_rows_are_written_in_place_in_any_order(tmp_path):
    out = tmp_path / "out.h5"
    kinds = {"a": ([5, 2], "<f8"), "b": ([5], "<i8")}
    rows = Rows(out, *Rows.begin(out, kinds, {"step": 3}))
    values = np.arange(10.0).reshape(5, 2)
    for start, stop in ((3, 5), (0, 3)):
        rows.write(start, {"a": values[start:stop], "b": np.arange(start, stop)})
    assert not out.exists()
    rows.finish()
    rows.discard()
    with h5py.File(out) as file:
        assert np.array_equal(file["a"][:], values)
        assert file["b"][:].tolist() == [0, 1, 2, 3, 4]
        assert file.attrs["step"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]
    with pytest.raises(DataError, match="cannot write"):
        Rows.begin(tmp_path / "none" / "out.h5", kinds, {})
