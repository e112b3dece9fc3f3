"""Runs that save: behind the training or not, by the clock, after the best evaluation."""

import pytest
import torch

from hpc_train.checkpoint import METRICS, Pace, Store
from hpc_train.errors import CheckpointError
from hpc_train.world import RankError
from tests.train.runs import records, trainer, weights


def fit(tmp_path, *, resume=None, **sections):
    made = trainer(tmp_path, **sections)
    return made.fit(resume=resume), made


def steps(tmp_path):
    return Store(tmp_path / "run/checkpoints").steps()


@pytest.mark.parametrize("asynchronous", [True, False])
def test_every_set_holds_the_state_after_its_step(tmp_path, asynchronous):
    section = {"every": "1 step", "keep_last": 20, "asynchronous": asynchronous}
    fit(tmp_path, checkpoint=section, optimizer={"name": "adamw", "lr": 0.01})
    assert steps(tmp_path) == list(range(1, 11))
    for step in (1, 4, 9):
        run = {"epochs": None, "steps": step, "dir": str(tmp_path / f"{step}")}
        _, made = fit(tmp_path, run=run, optimizer={"name": "adamw", "lr": 0.01})
        saved = Store(tmp_path / "run/checkpoints").load(
            tmp_path / f"run/checkpoints/step-{step:08}"
        )
        found = [saved.tensors[f"model/{name}"] for name in made.model.state_dict()]
        assert torch.equal(torch.cat([t.reshape(-1) for t in found]), weights(made.model))


def test_by_the_clock_nothing_else_saves_but_the_end(tmp_path, monkeypatch):
    fit(tmp_path, checkpoint={"every": "10 minutes"})
    assert steps(tmp_path) == [10]
    monkeypatch.setattr(Pace, "seconds", property(lambda self: 0.0))
    run = {"epochs": 4, "dir": str(tmp_path / "run")}
    fit(tmp_path, run=run, checkpoint={"every": "auto", "keep_last": 99}, resume=tmp_path / "run")
    found = steps(tmp_path)
    assert found[:2] == [10, 11]
    assert found[-1] == 20


def test_auto_learns_from_what_a_save_costs(tmp_path, monkeypatch):
    seen = []

    def seconds(self):
        seen.append(self)
        return 0.0

    monkeypatch.setattr(Pace, "seconds", property(seconds))
    section = {"every": "auto", "mean_time_between_failures": "2 hours"}
    fit(tmp_path, run={"epochs": 30}, checkpoint=section)
    assert seen[0].blocked is None
    assert seen[-1].mean_time_between_failures == 7200
    assert 0 < seen[-1].blocked < seen[-1].writing


@pytest.mark.parametrize(("text", "pick"), [("min loss", min), ("max accuracy", max)])
def test_the_best_on_the_validation_data_is_saved_and_kept(tmp_path, text, pick):
    options = {
        "data": {"validation": str(tmp_path / "data")},
        "optimizer": {"name": "sgd", "lr": 3.0},
        "run": {"epochs": 6, "evaluate": "2 steps"},
    }
    section = {"every": "never", "keep_last": 1, "keep_best": text}
    fit(tmp_path, checkpoint=section, **options)
    metric = text.split()[1]
    values = {r["step"]: r["metrics"][metric] for r in records(tmp_path, "evaluation")}
    best = min(step for step in values if values[step] == pick(values.values()))
    assert steps(tmp_path) == sorted({best, 30})
    saved = Store(tmp_path / "run/checkpoints").load(tmp_path / f"run/checkpoints/step-{best:08}")
    assert saved.manifest.notes[METRICS][metric] == values[best]


def test_a_resumed_run_knows_the_best_of_before(tmp_path):
    options = {"data": {"validation": str(tmp_path / "data")}}
    section = {"every": "never", "keep_last": 1, "keep_best": "max accuracy"}
    fit(tmp_path, run={"epochs": 1}, checkpoint=section, **options)
    store = Store(tmp_path / "run/checkpoints")
    first = store.newest()
    store.save(5, first.tensors, first.manifest.notes | {METRICS: {"accuracy": 1.1}})
    run = {"epochs": 3, "dir": str(tmp_path / "run")}
    fit(tmp_path, run=run, checkpoint=section, resume=tmp_path / "run", **options)
    assert steps(tmp_path) == [5, 15]


@pytest.mark.parametrize(
    ("best", "data", "message"),
    [
        ("max acuracy", True, r'unknown metric "acuracy", known: accuracy, loss; did you mean'),
        ("min loss", False, "keep_best needs data.validation"),
    ],
)
def test_what_is_best_is_checked_at_the_beginning(tmp_path, best, data, message):
    options = {"data": {"validation": str(tmp_path / "data")}} if data else {}
    with pytest.raises(RankError, match=message) as caught:
        fit(tmp_path, checkpoint={"keep_best": best}, **options)
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


def test_a_failure_surfaces_in_a_later_step_and_the_next_save_goes_well(
    tmp_path, monkeypatch, caplog
):
    real, calls = Store.save, []

    def save(self, step, tensors, notes):
        calls.append(step)
        if step == 2:
            raise CheckpointError("cannot save a checkpoint: No space left on device")
        return real(self, step, tensors, notes)

    monkeypatch.setattr(Store, "save", save)
    found, _ = fit(tmp_path, checkpoint={"every": "2 steps", "keep_last": 9})
    assert found.status == "done"
    assert steps(tmp_path) == [4, 6, 8, 10]
    assert caplog.text.count("No space left on device; going on with the older ones") == 1
    (event,) = records(tmp_path, "event")
    assert event["event"] == "save failed"
    assert event["batch"] in (2, 3, 4)
