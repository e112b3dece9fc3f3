"""A GAN as users train it: pictures in the run directory, and samples from what it learned."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from hpc_train import Trainer
from hpc_train.cli import cli
from hpc_train.errors import UsageError
from tests.train.runs import comm, trainer

GAN = {"name": "dcgan", "latent_size": 4, "channels": [4]}


def train(folder, **sections):
    data = {"train": "builtin:digits/train[:32]", "inputs": "image", "scale": 0.0625}
    sections = {"task": {"name": "adversarial"}, "precision": {"dtype": "float64"}} | sections
    run = {"steps": 3, "evaluate": "2 steps", "dir": str(folder)}
    made = Trainer(
        GAN, comm=comm(), quiet=True, data=data | {"batch_size": 16}, run=run, **sections
    )
    return made.fit()


def sample(*words):
    return CliRunner().invoke(cli, ["sample", *map(str, words)], catch_exceptions=False)


def test_pictures_come_with_evaluations_and_samples_keep_their_numbers(tmp_path):
    train(tmp_path / "run", task={"name": "adversarial", "critic_steps": 3})
    pictures = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert pictures == ["step-00000002.png", "step-00000003.png"]
    steps = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    told = ["loss_generator" in record for record in steps if record["kind"] == "step"]
    assert told == [False, False, True]
    ended = sample(tmp_path / "run", tmp_path / "a.h5", "--num", 5, "--plot", tmp_path / "a.png")
    assert ended.exit_code == 0, ended.output
    assert "5 samples of shape (1, 8, 8), step 3" in ended.output
    sample(tmp_path / "run", tmp_path / "b.h5", "--num", 2, "--first", 3)
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert a["sample"].shape == (5, 1, 8, 8)
        assert a.attrs["step"] == 3
        np.testing.assert_allclose(a["sample"][3:], b["sample"][:], rtol=1e-12)
        assert np.abs(a["sample"][3] - a["sample"][4]).max() > 1e-6
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_that_cannot_be_written_costs_no_run(tmp_path, caplog):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_text("in the way")
    assert train(tmp_path / "run").status == "done"
    assert "cannot write a picture" in caplog.text


def test_a_classifier_makes_no_samples(tmp_path):
    trainer(tmp_path, run={"epochs": 1}).fit()
    with pytest.raises(UsageError, match='task "classification" makes no samples'):
        CliRunner().invoke(
            cli,
            ["sample", str(tmp_path / "run"), str(tmp_path / "x.h5")],
            standalone_mode=False,
            catch_exceptions=False,
        )
