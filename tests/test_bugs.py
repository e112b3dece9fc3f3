"""One test per bug that was found, opening with its story."""

import json
import math
import time

import numpy as np
import pytest
import torch

from hpc_train.checkpoint import Store
from hpc_train.data.loader import Loader
from hpc_train.data.order import make_order
from hpc_train.errors import ConfigError, DataError
from hpc_train.observe import Result, read_result
from hpc_train.optim import Settings
from hpc_train.plan import Course, Plan
from hpc_train.record import Stopwatch, listening, phase
from hpc_train.strategies import Learner, make_arenas
from hpc_train.world import RankError
from tests.data.files import make_dataset
from tests.train.runs import trainer


def test_a_hook_that_raises_leaves_the_hooks_entered_before_it():
    """Fault injection raised at the start of a phase, and the stopwatch never left that phase.

    Its stack of inner seconds stayed one too high, so every later outer phase was timed wrongly.
    """
    left = []
    watch = Stopwatch()

    def injection(name, detail):
        raise RuntimeError("injected")

    def first(name, detail):
        return lambda: left.append(name)

    hooks = listening(first), listening(watch), listening(injection)
    with hooks[0], hooks[1], hooks[2], pytest.raises(RuntimeError, match="injected"), phase("x"):
        pytest.fail("the phase must not begin")
    assert left == ["x"]
    assert watch.take().keys() == {"x"}


def test_a_read_error_does_not_lend_the_same_buffers_twice(tmp_path):
    """After a batch that could not be read, two later batches shared one buffer.

    The buffers of the batch before it were put back twice, so a reader that went on overwrote the
    samples that the trainer was working on.
    """
    dataset = make_dataset(tmp_path, [8, 8])
    course = Course(16, 4)
    works = [Plan((4,)).work(batch, 0) for batch in course.batches(0, 4)]
    order = make_order("none", dataset.blocks(), 0, 1)
    with Loader(dataset, order, ["x"], cache_bytes=0) as loader:
        loader.get(works[0])
        dataset.path(1).rename(tmp_path / "away")
        loader.follow(iter(works[3:]))
        while not loader._ahead._ready:  # the error is there before it is asked for
            time.sleep(0.001)
        with pytest.raises(DataError):
            loader.get(works[3])
        first = loader.get(works[0])
        second = loader.read(works[1])
        assert not np.shares_memory(first.arrays["x"], second.arrays["x"])


def test_the_only_valid_checkpoint_outlives_a_damaged_one_of_a_later_step(tmp_path):
    """A run resumed from step 5, because step 10 was damaged, lost what it saved at step 6.

    Keeping the newest set by number kept the damaged one, and removed both valid ones.
    """
    store = Store(tmp_path, keep_last=1)
    store.save(10, {"a": torch.ones(1)}, {})
    (store.path(10) / "manifest.json").unlink()
    store.save(6, {"a": torch.zeros(1)}, {})
    assert store.steps() == [6]
    assert store.newest().manifest.step == 6


def test_tensors_that_are_not_contiguous_can_be_saved(tmp_path):
    """A model with a transposed buffer trained to its end and failed when it was saved."""
    Store(tmp_path).save(1, {"a": torch.arange(6.0).view(2, 3).t()}, {})
    assert Store(tmp_path).newest().tensors["a"].shape == (3, 2)


def test_gradients_reach_the_arena_after_the_memory_format_changed(caplog):
    """After `.to(memory_format=torch.channels_last)` a convolution was never trained again.

    `Module.to` moves the data of the very tensor that `.grad` is. The arena compared with that
    tensor itself, found no difference, and its own gradient stayed zero.
    """
    model = torch.nn.Conv2d(2, 3, 3)
    (arena,) = make_arenas(model.named_parameters())
    model.to(memory_format=torch.channels_last)
    model(torch.ones(1, 2, 4, 4)).sum().backward()
    arena.gather()
    assert arena.view(arena.grad, "weight").all()
    assert "moved out" in caplog.text


def test_another_optimizer_begins_anew(caplog):
    """A run resumed with another optimizer broke in its first step with a KeyError.

    The momentum of SGD was taken for the state of Adam, which then missed its own.
    """
    state = {}
    for name in ("sgd", "adam"):
        model = torch.nn.Linear(2, 1)
        learner = Learner("main", model.named_parameters(), name, Settings(momentum=0.9))
        learner.load_state(state)
        learner.zero()
        model(torch.ones(1, 2)).sum().backward()
        learner.update(1.0)
        state = learner.state()
    assert "the state of another optimizer (momentum_buffer) cannot be used" in caplog.text


class SparseNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(100, 7, sparse=True)

    def forward(self, x):
        self.zero_grad()  # drops the dense gradient that torch would add to
        return self.table(x.long()).mean(1)


def test_an_error_after_the_backward_pass_is_not_swallowed(tmp_path):
    """A model with sparse gradients trained to its end, and its weights never changed.

    Collecting the gradients raised on every rank, but the tally already said that all was well, so
    nobody looked at the error.
    """
    with pytest.raises(RankError, match="gradients must be dense"):
        trainer(tmp_path, SparseNet()).fit()


def test_resuming_a_complete_run_keeps_its_result(tmp_path):
    """A job that was requeued after its end lost its `result.json`, and so looked unfinished.

    The run directory was made ready, the result removed, and only then the checkpoint read.
    """
    trainer(tmp_path).fit()
    with pytest.raises(ConfigError, match="complete already"):
        trainer(tmp_path).fit(resume=tmp_path / "run")
    assert read_result(tmp_path / "run").status == "done"


def test_a_result_that_is_not_a_number_is_valid_json(tmp_path):
    """A diverged run wrote `NaN` into `result.json`, which no strict reader takes."""
    Result("done", 0, 1, {"test": {"loss": math.nan}}, "here").write(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["metrics"] == {"test": {"loss": None}}
    assert math.isnan(read_result(tmp_path).metrics["test"]["loss"])


@pytest.mark.parametrize("writes", [False, True])
def test_the_result_of_an_earlier_run_is_not_the_result_of_this_one(tmp_path, monkeypatch, writes):
    """`hpc-train run ... -n 2` into the directory of a finished run printed an error and gave 0.

    The ranks refused and left the directory alone, and the launcher took the result that lay there.
    """
    from hpc_train.cli import run
    from hpc_train.launch import restart
    from hpc_train.launch.supervise import Ended
    from hpc_train.stop import StopFlag
    from hpc_train.train import build

    Result("done", 0, 1, {}, str(tmp_path)).write(tmp_path)

    def start_job(program, ranks, environ, *, fault_tolerant, hosts):
        if writes:
            Result("done", 0, 2, {}, str(tmp_path)).write(tmp_path)
        return Ended(2)

    monkeypatch.setattr(restart, "start_job", start_job)
    monkeypatch.setattr(build, "preflight", lambda config, ranks: None)
    text = '[data]\ntrain = "a"\ninputs = "x"\n[model]\nname = "mlp"\n'
    (tmp_path / "run.toml").write_text(text)
    request = run.resolve(str(tmp_path / "run.toml"), (f"run.dir={tmp_path}",), None)
    assert run.launch(request, 2, StopFlag(), as_json=False, verbose=False) == (0 if writes else 2)
