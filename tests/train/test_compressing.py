"""`hpc-train compress`: from a run to a smaller file, and a report that is true."""

import json

import pytest
import torch

from hpc_train.cli import compress as command
from hpc_train.compress import find_quantized
from hpc_train.errors import ConfigError, UsageError
from hpc_train.train.compressing import Plain, Wish, compress
from hpc_train.train.trained import open_run
from tests.train.runs import trainer

DIGITS = {
    "train": "builtin:digits/train",
    "test": "builtin:digits/test",
    "inputs": "image",
    "targets": "label",
    "scale": 0.0625,
    "batch_size": 64,
}
CNN = {"name": "cnn", "channels": [8, 16], "hidden": 32, "dropout": 0.1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run directories, trained once: by what was asked for."""
    folder = tmp_path_factory.mktemp("runs")
    for name, section in {
        "plain": {},
        "channels": {"prune": "channels", "amount": 0.6, "channel_multiple": 2},
        "int8": {"quantize": "int8"},
    }.items():
        section = {"every": "5 steps", **section} if section else {}
        run = trainer(
            folder,
            CNN,
            run={"epochs": 8, "evaluate": "never", "dir": str(folder / name)},
            data=DIGITS,
            optimizer={"name": "adam", "lr": 3e-3},
            regularization={"dropout": 0.2},
            precision={"dtype": "float32"},
            compress=section,
        )
        run.fit()
    return folder


def told(folder):
    document = json.loads((folder / "result.json").read_text())
    return document["metrics"]["test"]["accuracy"]


def made(runs, name, tmp_path, prune="none", amount=0.5, quantize="none"):
    plain = Plain(runs / name)
    return plain, compress(plain, Wish(prune, amount, quantize, 0.01), tmp_path / "model.pt")


def test_channels_are_gone_and_results_are_those_of_the_run(runs, tmp_path):
    plain, report = made(runs, "channels", tmp_path)
    assert report.metrics_before["accuracy"] == pytest.approx(told(runs / "channels"))
    assert report.metrics_after["accuracy"] == report.metrics_before["accuracy"]
    assert 0.2 < report.after.flops / report.before.flops < 0.5
    assert report.after.parameters < 0.8 * report.before.parameters
    inputs = plain.samples()[0]
    outputs = torch.jit.load(str(tmp_path / "model.pt"))(inputs)
    torch.testing.assert_close(outputs, plain.model(inputs), rtol=1e-5, atol=1e-5)


def test_int8_of_training(runs, tmp_path):
    plain, report = made(runs, "int8", tmp_path, quantize="static")
    assert plain.quantize == "static"
    names = {n for n, m in open_run(runs / "int8").model.named_modules() if m in find_quantized(m)}
    assert plain.ranges.keys() == names
    assert report.metrics_after["accuracy"] >= told(runs / "int8") - 0.03
    assert report.after.flops == report.before.flops


@pytest.mark.parametrize("quantize", ["static", "dynamic"])
def test_int8_after_training(quantize, runs, tmp_path):
    plain, report = made(runs, "plain", tmp_path, quantize=quantize)
    assert plain.quantize == "none"
    assert report.metrics_after["accuracy"] >= told(runs / "plain") - 0.03
    assert report.metrics_after["loss"] != report.metrics_before["loss"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.pt"]


@pytest.mark.parametrize("rule", ["magnitude", "saliency", "sensitivity", "pattern", "channels"])
def test_pruning_at_once(rule, runs, tmp_path):
    _, report = made(runs, "plain", tmp_path, rule, 0.4)
    if rule == "channels":
        assert report.after.flops < 0.65 * report.before.flops
    else:
        assert report.after.nonzero < 0.65 * report.before.parameters
    assert report.metrics_after["accuracy"] > 0.3


def test_lines_of_the_report(runs, tmp_path):
    _, report = made(runs, "channels", tmp_path)
    lines = command.lines(report)
    assert lines[0].split() == ["before", "after", "ratio"]
    assert any(line.startswith("MFLOPs") for line in lines)
    assert any(line.startswith("test accuracy") and line.endswith("+0.0000") for line in lines)


def test_what_is_no_run(tmp_path):
    with pytest.raises(ConfigError, match="no run directory"):
        Plain(tmp_path)


def test_unknown_rule(runs, tmp_path):
    with pytest.raises((ConfigError, UsageError), match="unknown pruning"):
        made(runs, "plain", tmp_path, "magnitud")
