"""Whole runs of one rank: resumed equals uninterrupted, failures leave the state before them."""

import io
import os
import signal

import numpy as np
import pytest
import torch
from torch import nn

from hpc_train.checkpoint import Store
from hpc_train.errors import CheckpointError, ConfigError, HpcTrainError, NonFiniteError
from hpc_train.tasks import Classification
from hpc_train.world import RankError
from tests.data.files import write_shard
from tests.train.runs import records, result, trainer, weights


def fit(tmp_path, *arguments, resume=None, **sections):
    made = trainer(tmp_path, *arguments, **sections)
    return made.fit(resume=resume), made


def uninterrupted(tmp_path, **sections):
    """The weights after a whole run in a directory of its own."""
    run = sections.pop("run", {}) | {"dir": str(tmp_path / "whole")}
    return weights(fit(tmp_path, run=run, **sections)[1].model)


class Poisoned(Classification):
    """A classification that does something else in one of its batches."""

    def __init__(self, at: int, kind: str):
        super().__init__()
        self.at, self.kind, self.calls = at, kind, 0

    def losses(self, model, batch):
        found = super().losses(model, batch)
        self.calls += model.training
        if model.training and self.calls == self.at + 1:
            if self.kind == "raise":
                raise RuntimeError("broken sample")
            if self.kind == "nan":
                return type(found)(found.values * float("nan"), sums=found.sums)
            if self.kind == "signal":
                os.kill(os.getpid(), signal.SIGUSR1)
        return found


def poisoned(at, kind):
    return {"name": "tests.train.test_trainer:Poisoned", "at": at, "kind": kind}


class Normed(nn.Module):
    """A network with running statistics."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 7))

    def forward(self, x):
        return self.body(x)


def normed():
    torch.manual_seed(0)
    return Normed()


def test_a_run_leaves_everything_it_promises(tmp_path):
    data = str(tmp_path / "data")
    found, _ = fit(tmp_path, data={"validation": f"{data}[:9]", "test": data})
    assert (found.status, found.exit_code, found.step) == ("done", 0, 10)
    steps = records(tmp_path, "step")
    assert [(r["step"], r["batch"], r["epoch"]) for r in steps] == [
        (n + 1, n + 1, n // 5) for n in range(10)
    ]
    assert {"loss", "lr", "samples_per_second", "seconds", "delivered"} <= steps[0].keys()
    evaluations = [(r["data"], r["batch"]) for r in records(tmp_path, "evaluation")]
    assert evaluations == [("validation", 5), ("validation", 10), ("test", 10)]
    assert result(tmp_path)["metrics"].keys() == {"validation", "test"}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names >= {"config.toml", "environment.json", "logs", "checkpoints", "result.json"}
    assert Store(tmp_path / "run/checkpoints").steps() == [5, 10]


@pytest.mark.parametrize("stop", [1, 3, 5, 7])
def test_resumed_equals_uninterrupted(tmp_path, stop):
    expected = uninterrupted(tmp_path)
    fit(tmp_path, run={"epochs": None, "steps": stop})
    _, again = fit(tmp_path, resume=tmp_path / "run")
    assert torch.equal(weights(again.model), expected)
    whole, parts = (
        [(r["batch"], r["loss"], r["delivered"]) for r in records(tmp_path, "step", name)]
        for name in ("whole", "run")
    )
    assert whole == parts


def test_resumed_twice_from_the_same_place(tmp_path):
    fit(tmp_path, run={"epochs": None, "steps": 3})
    vectors = []
    for _ in range(2):
        _, made = fit(tmp_path, run={"epochs": None, "steps": 6}, resume=tmp_path / "run")
        vectors.append(weights(made.model))
        newest = Store(tmp_path / "run/checkpoints").path(6)
        (newest / "manifest.json").unlink()  # the second goes on from step 3 again
    assert torch.equal(*vectors)
    assert [r["batch"] for r in records(tmp_path, "step")] == [1, 2, 3, 4, 5, 6]


def test_resumed_with_another_batch_size_every_sample_is_used_once(tmp_path):
    fit(tmp_path, run={"epochs": None, "steps": 2})
    fit(tmp_path, run={"epochs": 1}, data={"batch_size": 4}, resume=tmp_path / "run")
    steps = records(tmp_path, "step")
    assert [r["batch"] for r in steps] == [1, 2, 3, 4, 5, 6, 7]
    fit(tmp_path, run={"epochs": 1, "dir": str(tmp_path / "one")}, data={"batch_size": 33})
    (one,) = records(tmp_path, "step", "one")
    assert sum(r["delivered"] for r in steps) % 2**32 == one["delivered"]


def test_the_order_may_not_change_in_mid_epoch_and_may_at_its_end(tmp_path):
    fit(tmp_path, run={"epochs": None, "steps": 7})
    with pytest.raises(RankError, match=r"order .* must not change .*seed: 0 -> 1"):
        fit(tmp_path, run={"seed": 1}, resume=tmp_path / "run")
    assert result(tmp_path)["status"] == "done"  # of the part before: nothing was touched
    fit(tmp_path, run={"epochs": 2}, resume=tmp_path / "run")
    fit(tmp_path, run={"epochs": 3, "seed": 1}, resume=tmp_path / "run")


def test_a_model_that_does_not_fit_its_checkpoint(tmp_path):
    fit(tmp_path, run={"epochs": 1})
    before = (tmp_path / "run/config.toml").read_text()
    other = {"name": "mlp", "hidden": [5], "activation": "tanh"}
    with pytest.raises(RankError, match=r"checkpoint does not fit the model: .* has shape"):
        fit(tmp_path, other, resume=tmp_path / "run")
    assert (tmp_path / "run/config.toml").read_text() == before
    assert result(tmp_path)["status"] == "done"


def test_a_complete_run_says_so_and_keeps_its_result(tmp_path):
    fit(tmp_path)
    before = result(tmp_path)
    with pytest.raises(ConfigError, match=r"complete already \(10 of 10 batches\)") as caught:
        fit(tmp_path, resume=tmp_path / "run")
    assert caught.value.agreed
    assert "run.epochs" in caught.value.hint
    assert result(tmp_path) == before


def test_a_run_that_ended_before_its_result_was_written_is_ended(tmp_path):
    fit(tmp_path, data={"test": str(tmp_path / "data")})
    expected = result(tmp_path)["metrics"]
    (tmp_path / "run/result.json").unlink()
    found, _ = fit(tmp_path, data={"test": str(tmp_path / "data")}, resume=tmp_path / "run")
    assert (found.status, found.metrics) == ("done", expected)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RankError, match="no valid checkpoint"):
        fit(tmp_path, resume=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_that_holds_a_run_is_not_used_again(tmp_path):
    fit(tmp_path)
    with pytest.raises(RankError, match="run directory holds a run already") as caught:
        fit(tmp_path)
    assert "--resume" in caught.value.hint


@pytest.mark.parametrize(("at", "batches", "status"), [(2, 3, "preempted"), (9, 10, "done")])
def test_sigusr1_saves_and_leaves_after_the_batch(tmp_path, at, batches, status):
    before = signal.getsignal(signal.SIGUSR1)
    found, _ = fit(tmp_path, task=poisoned(at, "signal"), data={"test": str(tmp_path / "data")})
    assert signal.getsignal(signal.SIGUSR1) is before
    assert (found.status, found.exit_code) == (status, 75 if status == "preempted" else 0)
    assert ("test" in found.metrics) == (status == "done")
    assert len(records(tmp_path, "step")) == batches
    assert Store(tmp_path / "run/checkpoints").steps()[-1] == batches
    if status == "preempted":
        _, again = fit(tmp_path, resume=tmp_path / "run")
        assert torch.equal(weights(again.model), uninterrupted(tmp_path))


def test_sigusr1_at_the_end_of_a_segment_still_evaluates(tmp_path):
    data = {"validation": str(tmp_path / "data")}
    found, _ = fit(tmp_path, task=poisoned(4, "signal"), data=data)
    assert found.status == "preempted"
    assert [r["batch"] for r in records(tmp_path, "evaluation")] == [5]


@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_a_failing_batch_saves_the_state_before_it(tmp_path, kind):
    expected = uninterrupted(tmp_path)
    error, message = (RankError, "broken sample") if kind == "raise" else (NonFiniteError, "loss")
    with pytest.raises(error, match=message) as caught:
        fit(tmp_path, task=poisoned(7, kind))
    assert caught.value.agreed
    assert result(tmp_path)["status"] == "failed"
    assert Store(tmp_path / "run/checkpoints").newest().manifest.notes["batch"] == 7
    _, again = fit(tmp_path, resume=tmp_path / "run")
    assert torch.equal(weights(again.model), expected)


def test_non_finite_batches_can_be_skipped(tmp_path, caplog):
    skip = {"optimizer": {"non_finite": "skip"}}
    found, made = fit(tmp_path, task=poisoned(1, "nan"), **skip)
    assert (found.status, found.step) == ("done", 9)
    assert torch.isfinite(weights(made.model)).all()
    assert "loss is not finite in batch 1 of epoch 0: update skipped" in caplog.text
    steps = records(tmp_path, "step")
    assert [r["step"] for r in steps] == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert steps[1]["loss"] is None
    (event,) = records(tmp_path, "event")
    assert (event["event"], event["batch"]) == ("skipped", 1)


def test_a_save_that_fails_warns_and_the_last_one_fails_the_run(tmp_path, monkeypatch, caplog):
    real, calls = Store.save, []

    def full(self, step, tensors, notes):
        calls.append(step)
        if len(calls) != 2:
            raise CheckpointError("cannot save a checkpoint: No space left on device")
        return real(self, step, tensors, notes)

    monkeypatch.setattr(Store, "save", full)
    with pytest.raises(RankError, match="cannot save a checkpoint"):
        fit(tmp_path, checkpoint={"every": "4 steps"})
    assert calls[:3] == [4, 8, 10]
    assert "No space left on device; going on with the older ones" in caplog.text
    assert Store(tmp_path / "run/checkpoints").steps() == [8]
    assert result(tmp_path)["status"] == "failed"


def test_a_stream_that_breaks_does_not_end_the_run(tmp_path, caplog):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError(32, "Broken pipe")

    assert trainer(tmp_path, stream=Closed()).fit().status == "done"
    assert caplog.text.count("Progress cannot be written any more: Broken pipe") == 1


def test_a_users_own_model_and_all_frozen(tmp_path):
    _, made = fit(tmp_path, nn.Linear(3, 7))
    assert made.config.model.name == "Linear"
    with pytest.raises(RankError, match="no parameters to train"):
        fit(tmp_path, nn.Linear(3, 7).requires_grad_(False), run={"dir": str(tmp_path / "b")})
    with pytest.raises(RankError, match=r"the model cannot take the inputs \(x \(3,\)"):
        fit(tmp_path, nn.Linear(4, 7), run={"dir": str(tmp_path / "c")})


def test_normalized_data_train_as_if_they_had_been_so_before(tmp_path):
    raw = np.random.default_rng(0).integers(-500, 900, (33, 3)).astype("<i2")
    numbers = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    found = []
    for name, x, normalize in (("raw", raw, True), ("numbers", numbers, False)):
        write_shard(tmp_path / f"{name}.h5", {"x": x, "y": np.arange(33) % 7})
        data = {"train": str(tmp_path / f"{name}.h5"), "scale": "none", "normalize": normalize}
        run = {"dir": str(tmp_path / name)}
        found.append(weights(fit(tmp_path, data=data, run=run)[1].model))
    assert torch.allclose(*found, rtol=1e-10, atol=1e-12)


def test_what_cannot_be_normalized_is_told(tmp_path):
    data = {"inputs": "y", "normalize": True}
    with pytest.raises(RankError, match="needs inputs of several numbers"):
        fit(tmp_path, data=data)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 7), nn.Linear(3, 7)

    def forward(self, x):
        return self.left(x) + self.right(x)


class Half(Classification):
    def __init__(self, name, names):
        super().__init__()
        self.name, self._names = name, names

    def parameters(self, model):
        return [(n, p) for n, p in model.named_parameters() if n.startswith(self._names)]


class Two:
    """Two phases: the halves of a `Pair` in turn."""

    metrics = ("accuracy",)

    def __init__(self, overlap: bool = False):
        both = ("left", "right")
        self.phases = [Half("first", "left"), Half("second", both if overlap else "right")]


def test_two_phases_train_their_parameters_in_turn(tmp_path):
    torch.manual_seed(0)
    model, plain = Pair(), Pair()
    plain.load_state_dict(model.state_dict())
    plain.double()
    task = {"name": "tests.train.test_trainer:Two"}
    options = {"data": {"shuffle": "none"}, "optimizer": {"name": "sgd", "lr": 0.5}}
    fit(tmp_path, model, task=task, run={"epochs": None, "steps": 3}, **options)
    for first in (0, 7, 14):
        ids = torch.arange(first, first + 7)
        x = torch.stack([ids, ids * 2, ids * 3], 1).double() * 0.01
        for half in (plain.left, plain.right):
            plain.zero_grad()
            nn.functional.cross_entropy(plain(x), ids % 7).backward()
            torch.optim.SGD(half.parameters(), lr=0.5).step()
    assert torch.allclose(weights(model), weights(plain), rtol=1e-12, atol=1e-14)
    assert {"loss", "loss_second"} <= records(tmp_path, "step")[0].keys()
    resumed = Pair()
    fit(tmp_path, resumed, task=task, run={"epochs": 2}, **options, resume=tmp_path / "run")
    whole = Pair()
    whole.load_state_dict(plain.state_dict())
    assert weights(resumed).shape == weights(whole).shape


def test_each_phase_has_settings_of_its_own(tmp_path):
    model, task = Pair(), {"name": "tests.train.test_trainer:Two"}
    right = {"second": {"lr": 0.0}}
    before = model.left.weight.detach().clone(), model.right.weight.detach().clone()
    fit(tmp_path, model, task=task, optimizer={"name": "sgd", "lr": 0.5, "phases": right})
    assert not torch.equal(before[0].double(), model.left.weight)
    assert torch.equal(before[1].double(), model.right.weight)
    step = records(tmp_path, "step")[0]
    assert (step["lr"], step["lr_second"]) == (0.5, 0.0)
    with pytest.raises(RankError, match='unknown phase "third", known: first, second'):
        fit(tmp_path, Pair(), task=task, optimizer={"phases": {"third": {}}}, run={"dir": "x"})


def test_a_parameter_belongs_to_one_phase(tmp_path):
    task = {"name": "tests.train.test_trainer:Two", "overlap": True}
    with pytest.raises(RankError, match=r"one phase only \(left.weight: first, second\)"):
        fit(tmp_path, Pair(), task=task)


class Typo(Classification):
    def __init__(self):
        super().__init__()
        self.sums = ("acuracy",)


def test_a_metric_that_was_not_announced_is_named(tmp_path):
    with pytest.raises(HpcTrainError, match='unknown metric "accuracy", known: acuracy'):
        fit(tmp_path, task={"name": "tests.train.test_trainer:Typo"})


@pytest.mark.parametrize("kind", ["raise", "nan"])
def test_running_statistics_of_a_failing_batch_are_taken_back(tmp_path, kind):
    _, made = fit(tmp_path, normed(), run={"epochs": None, "steps": 2, "dir": str(tmp_path / "a")})
    with pytest.raises(HpcTrainError):
        fit(tmp_path, normed(), task=poisoned(2, kind))
    saved = Store(tmp_path / "run/checkpoints").newest().tensors
    for name, tensor in made.model.state_dict().items():
        assert torch.equal(saved[f"model/{name}"], tensor)


def test_rates_of_single_parameters(tmp_path):
    options = {"task": {"name": "tests.train.test_trainer:Two"}}
    model = Pair()
    before = model.right.bias.detach().clone()
    fit(tmp_path, model, optimizer={"lr": 0.1, "rates": {"right.b*": 0.0}}, **options)
    assert torch.equal(before.double(), model.right.bias)
    with pytest.raises(RankError, match=r'"rigth.\*" matches none.*\n.*such as left.weight'):
        fit(tmp_path, Pair(), optimizer={"rates": {"rigth.*": 0.0}}, run={"dir": "x"}, **options)
