"""Recorded micro-batches: the same training as if each were computed anew."""

import pytest
import torch

from hpc_train.config import load
from hpc_train.errors import ConfigError, HpcTrainError, SetupError
from hpc_train.tasks import TensorBatch
from hpc_train.train import build, graphs
from hpc_train.train.graphs import WARM_UP, Graphs, check, make_graphs
from hpc_train.train.learning import make_task
from tests.train.runs import records, trainer, weights

MINE = {"train": "a", "inputs": "x", "targets": "y"}


class Tape:
    """Records on the CPU: what is played is computed again, results go into the same memory."""

    def __init__(self, model=lambda: None):
        self.warm, self.played, self._model = 0, [], model

    def beside(self, act):
        self.warm += 1
        return act()

    def record(self, act):
        found, number = {}, len(self.played)
        self.played.append(0)

        def play():
            self.played[number] += 1
            # on a GPU only what lies where it lay is added to
            model = self._model()
            assert model is None or all(p.grad is not None for p in model.parameters())
            for name, value in act().items():
                found.setdefault(name, torch.empty_like(value)).copy_(value)

        return play, found


@pytest.mark.parametrize("class_weights", [None, [0.5, 1, 2, 1, 1, 1, 3]])
def test_a_run_that_is_played_is_the_run(monkeypatch, tmp_path, class_weights):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    told = {"data": {"micro_batch_size": 3}, "task": {"class_weights": class_weights}}
    large = {"name": "mlp", "hidden": [6000], "activation": "tanh"}
    plain, played = (trainer(tmp_path / name, large, **told) for name in "ab")
    plain.fit()
    tape = Tape(lambda: played.model)
    monkeypatch.setattr(build, "make_graphs", lambda *_: Graphs(tape))
    played.fit()
    assert torch.equal(weights(played.model), weights(plain.model))
    # two epochs of batches of 7, 7, 7, 7 and 5 samples, in parts of 3: 18 of 3, 8 of 1, 2 of 2
    assert tape.played == [18 - WARM_UP, 8 - WARM_UP]
    assert tape.warm == 2 * WARM_UP + 2
    a, b = (records(tmp_path / name, "step") for name in "ab")
    assert [(r["loss"], r["metrics"]) for r in a] == [(r["loss"], r["metrics"]) for r in b]


def batch_of(size):
    return TensorBatch({"x": torch.ones(size, 2)}, {"y": torch.zeros(size)}, torch.arange(size))


def test_shapes_and_phases_are_recorded_apart_and_not_without_end():
    tape = Tape()
    recorded = Graphs(tape)
    for _ in range(WARM_UP + 2):
        for size in range(1, 7):
            found = recorded.run("main", batch_of(size), lambda b: {"loss": b.inputs["x"].sum()})
            assert found["loss"] == 2 * size
    assert len(tape.played) == graphs.MOST_SHAPES
    recorded.forget()
    warm = tape.warm
    recorded.run("main", batch_of(1), lambda b: {"loss": b.inputs["x"].sum()})
    assert tape.warm == warm + 1


def test_what_cannot_be_recorded_is_told():
    class Refusing(Tape):
        def record(self, act):
            raise RuntimeError("operation not permitted when stream is capturing")

    recorded = Graphs(Refusing())
    for _ in range(WARM_UP):
        recorded.run("main", batch_of(1), lambda b: {})
    with pytest.raises(HpcTrainError, match="cannot be recorded: operation not permitted"):
        recorded.run("main", batch_of(1), lambda b: {})


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        ({"device": {"compile": True}}, "device.compile"),
        ({"device": {"activation_checkpointing": "auto"}}, "device.activation_checkpointing"),
        ({"model": {"name": "cnn", "sync_batchnorm": True}}, "model.sync_batchnorm"),
        ({"regularization": {"dropout": 0.1}}, "regularization.dropout"),
        ({"regularization": {"mixup": 0.1}}, "regularization.mixup"),
        ({"regularization": {"cutmix": 0.1}}, "regularization.cutmix"),
        ({"compress": {"quantize": "int8"}}, "compress.quantize"),
        ({"precision": {"autocast": "float16"}}, "precision.autocast"),
        ({"transfer": {"freeze": ["*"], "unfreeze": {"1": ["*"]}}}, "transfer.unfreeze"),
        ({"comm": {"overlap": True}}, "comm.overlap"),
        ({"model": {"name": "dcgan"}, "task": {"name": "adversarial"}}, "recordable = True"),
    ],
)
def test_what_decides_inside_a_step_is_refused(sections, what):
    made = load(None, sections={"data": MINE, "model": {"name": "mlp"}, **sections}).config
    with pytest.raises(ConfigError) as caught:
        check(made, make_task(made, 7))
    assert what in " ".join(caught.value.lines())


def test_off_by_default_and_refused_without_a_gpu():
    made = load(None, sections={"data": MINE, "model": {"name": "mlp"}}).config
    assert make_graphs(made, make_task(made, 7), torch.device("cpu")) is None
    asked = made.model_copy(update={"device": made.device.model_copy(update={"cuda_graphs": True})})
    check(asked, make_task(asked, 7))
    with pytest.raises(SetupError, match="CUDA graphs need a GPU"):
        make_graphs(asked, make_task(asked, 7), torch.device("cpu"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, which records")
def test_a_gpu_plays_what_it_computes(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    model = {"name": "mlp", "hidden": [16], "activation": "tanh", "dropout": 0.3}
    told = {"data": {"micro_batch_size": 3}, "run": {"epochs": 6}}
    plain = trainer(tmp_path / "a", model, device={"name": "cuda"}, **told)
    played = trainer(tmp_path / "b", model, device={"name": "cuda", "cuda_graphs": True}, **told)
    plain.fit()
    played.fit()
    assert torch.allclose(weights(played.model), weights(plain.model), 1e-10, 1e-12)
