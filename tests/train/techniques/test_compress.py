"""Pruning and quantisation-aware training, on one rank."""

import pytest
import torch
from torch import nn

from hpc_train.checkpoint import Store
from hpc_train.compress import find_quantized
from hpc_train.compress.pruning.sensitivity import Scan, Sensitivity
from hpc_train.errors import HpcTrainError
from tests.train.runs import records, trainer, weights

TEST = {"validation": "builtin:digits/test[:40]"}


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 7)
    )


def fit(tmp_path, steps=10, model=None, **compress):
    run = trainer(
        tmp_path,
        model or net(),
        run={"steps": steps, "evaluate": "never", "epochs": None},
        optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.5},
        compress={"every": "1 steps", **compress},
    )
    run.fit()
    return run.model


def zeros(model):
    named = [p for n, p in model.named_parameters() if n.endswith("weight")]
    return sum(int((p == 0).sum()) for p in named) / sum(p.numel() for p in named)


@pytest.mark.parametrize("rule", ["magnitude", "saliency", "sensitivity"])
def test_weights_stay_zero_to_the_end(rule, tmp_path):
    assert zeros(fit(tmp_path, prune=rule, amount=0.7)) == pytest.approx(0.7, abs=0.005)
    told = [record["metrics"]["sparsity"] for record in records(tmp_path, "step")]
    assert told == sorted(told)
    assert told[0] == 0
    assert told[-1] == pytest.approx(0.7, abs=0.005)


def test_pattern(tmp_path):
    model = fit(tmp_path, prune="pattern", pattern="1:4")
    groups = model[2].weight.reshape(-1, 4)
    assert ((groups != 0).sum(1) <= 1).all()


def test_channels_die_with_their_biases(tmp_path):
    model = fit(tmp_path, prune="channels", amount=0.5, channel_multiple=1)
    dead = (model[2].weight == 0).all(1)
    assert dead.any()
    assert (model[2].bias[dead] == 0).all()


def test_it_costs_nothing_when_off(tmp_path):
    assert zeros(fit(tmp_path)) == 0
    assert "sparsity" not in records(tmp_path, "step")[0]["metrics"]


def test_lottery_tickets_begin_where_they_did(tmp_path):
    before = net()[0].weight.detach().double()
    model = fit(tmp_path, steps=10, prune="magnitude", amount=0.6, begin=0.9, end=0.9, rewind=0.0)
    stays = model[0].weight != 0
    assert torch.equal(model[0].weight[stays], before[stays])


def test_rewinding_is_no_fine_tuning(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ticket = fit(tmp_path / "a", prune="magnitude", amount=0.6, begin=0.5, end=0.5, rewind=0.2)
    tuned = fit(tmp_path / "b", prune="magnitude", amount=0.6, begin=0.5, end=0.5)
    assert not torch.equal(weights(ticket), weights(tuned))
    assert zeros(ticket) == zeros(tuned)


def floored(tmp_path, floor):
    run = trainer(
        tmp_path,
        net(),
        run={"steps": 10, "evaluate": "2 steps", "epochs": None},
        data={"validation": str(tmp_path / "data")},
        optimizer={"name": "sgd", "lr": 0.02, "momentum": 0.5},
        compress={"every": "1 steps", "prune": "magnitude", "floor": floor, "begin": 0.0},
    )
    run.fit()
    return zeros(run.model)


def test_pruning_ends_below_the_floor(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert floored(tmp_path / "a", 1.1) < 0.6
    assert floored(tmp_path / "b", 0.0) == pytest.approx(0.8, abs=0.005)


def test_training_that_rounds_learns_ranges_and_other_weights(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = fit(tmp_path / "a", quantize="int8", quantize_begin=0.3)
    assert all(layer.is_rounding for layer in find_quantized(model))
    assert all(layer.input_low <= 0 < layer.input_high for layer in find_quantized(model))
    plain = fit(tmp_path / "b")
    assert not torch.equal(model[0].weight, plain[0].weight)
    torch.testing.assert_close(model[0].weight, plain[0].weight, rtol=0.2, atol=0.02)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"regularization": {"ema_decay": 0.9}}, "would bring back what is pruned"),
        ({"compress": {"prune": "magnitude", "floor": 0.5}}, "needs data.validation"),
        ({"compress": {"prune": "pattern", "pattern": "4:2"}}, "N < M"),
        ({"compress": {"prune": "magnitude", "begin": 0.8}}, "must not be after compress.end"),
        ({"strategy": {"name": "local_sgd"}}, "must meet after every update"),
        ({"compress": {"rewind": 0.05}}, "need compress.prune"),
    ],
)
def test_what_cannot_be(sections, text, tmp_path):
    with pytest.raises(HpcTrainError, match=text):
        trainer(tmp_path, net(), **{"compress": {"prune": "magnitude"}, **sections}).fit()


def test_sensitivity_is_measured_once_and_told(tmp_path, caplog, monkeypatch):
    """The table is in the log and the checkpoint; layers lose what it allots to them."""
    scan, scans = Sensitivity.scan, []

    def counted(self, trial):
        scans.append(scan(self, trial))
        return scans[-1]

    monkeypatch.setattr(Sensitivity, "scan", counted)
    with caplog.at_level("INFO"):
        model = fit(tmp_path, prune="sensitivity", amount=0.6, scan_samples=50)
    (table,) = scans
    rows = table.rows(0.6)
    lines = ["  ".join(row) for row in rows]
    assert [line for line in caplog.messages if line in lines] == lines, "each once, in order"
    notes = Store(tmp_path / "run" / "checkpoints").newest().manifest.notes
    assert Scan.from_json(notes["techniques"]["pruning"]["scan"]) == table
    named = dict(model.named_parameters())
    lost = {row[0]: float(row[-1]) for row in rows[1:]}
    assert sorted(lost) == ["0.weight", "2.weight", "4.weight"]
    for name, ratio in lost.items():
        zero = float((named[name] == 0).double().mean())
        assert zero == pytest.approx(ratio, abs=2 / named[name].numel() + 1e-3)
