"""Windows in a run: which rows are inputs, which are targets, and what half a description says."""

import numpy as np
import pytest
import torch

from hpc_train.config import load
from hpc_train.data import Samples, Windows
from hpc_train.data.index import FieldInfo
from hpc_train.data.layout import Layout
from hpc_train.data.writer import ShardWriter
from hpc_train.errors import ConfigError
from hpc_train.train.datasets import open_alone
from hpc_train.train.feed import Feed
from hpc_train.train.survey import scale_of, survey, targets_of, windows_of

TEXT = {"train": "text", "inputs": ["token"], "window": 6, "stride": 2}


def configured(task="next_token", **data):
    model = {"name": "transformer", "layers": 1, "heads": 1, "width": 8}
    return load(None, sections={"data": TEXT | data, "model": model, "task": {"name": task}}).config


def write(folder):
    fields = {"token": FieldInfo((), "uint8"), "x": FieldInfo((2,), "float64")}
    with ShardWriter(folder, fields, Layout(8, 40)) as writer:
        writer.append({"token": np.arange(50, dtype=np.uint8) % 7, "x": np.ones((50, 2))})
    return str(folder)


def test_targets_are_what_comes_next(tmp_path):
    config = configured(train=write(tmp_path / "text"), validation=str(tmp_path / "text"))
    datasets = open_alone(config)
    assert targets_of(config) == ["token"]
    assert windows_of(config).shift == 1
    assert scale_of(config) == "none"
    assert datasets["train"].num_samples == (50 - 7) // 2 + 1
    assert datasets["validation"].num_samples == 8  # side by side
    plan = survey(config, datasets, 1)
    assert (plan.input_shape, plan.num_tokens, plan.num_outputs) == ((6,), 7, 7)


def test_the_first_rows_are_inputs_and_the_last_ones_targets():
    arrays = {"token": np.arange(14).reshape(2, 7), "x": np.arange(28.0).reshape(2, 7, 2)}
    samples = Samples(np.arange(2), arrays, 0)
    cpu = torch.device("cpu")
    windows = Windows(5, 1, 2)
    feed = Feed(["token"], ["token", "x"], cpu, torch.float64, "none", None, windows=windows)
    batch = feed.batch(samples, 0, 2)
    assert batch.inputs["token"].tolist() == arrays["token"][:, :5].tolist()
    assert batch.targets["token"].tolist() == arrays["token"][:, 2:].tolist()
    assert batch.targets["x"].tolist() == arrays["x"][:, 2:].tolist()


@pytest.mark.parametrize(
    ("data", "task", "message"),
    [
        ({"window": None}, "next_token", "data.stride needs data.window"),
        ({"window": None, "stride": None}, "next_token", "needs data.window, or data.targets"),
        ({"window": None, "stride": None, "shift": 1}, "regression", "data.shift needs"),
    ],
)
def test_half_a_description_is_refused(data, task, message):
    with pytest.raises(ConfigError, match=message):
        windows_of(configured(task, **data))
