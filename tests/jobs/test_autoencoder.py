"""The recipe of the autoencoder: its codes keep more of the digits than PCA's of the same size."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from hpc_train.data.dataset import BUILTIN
from tests.jobs.processes import hpc_train


def digits(part):
    with h5py.File(Path(BUILTIN) / "digits" / part / "shard-00000.h5") as file:
        return file["image"][:].reshape(-1, 64) / 16


def principal_components(train, test, count):
    """Mean squared error of the best linear reconstruction from `count` numbers."""
    mean = train.mean(0)
    _, _, axes = np.linalg.svd(train - mean, full_matrices=False)
    codes = (test - mean) @ axes[:count].T
    return float(((test - mean - codes @ axes[:count]) ** 2).mean())


@pytest.mark.timeout(300)
def test_the_autoencoder_beats_principal_components(tmp_path):
    ended = hpc_train(
        "run", "digits-autoencoder", "run.dir=run", "run.epochs=40", cwd=tmp_path, seconds=250
    )
    assert ended.code == 0, ended
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    linear = principal_components(digits("train"), digits("test"), 8)
    assert result["metrics"]["test"]["mse"] < 0.8 * linear
