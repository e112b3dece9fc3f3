"""Real data: MNIST's 10,000 test images, imported by the command, trained by the recipe."""

import json
from pathlib import Path

import pytest

from tests.jobs.processes import hpc_train

IMAGES = Path(__file__).parents[3] / "shared/data/mnist_t10k/t10k-images-idx3-ubyte.gz"


@pytest.mark.skipif(not IMAGES.exists(), reason=f"MNIST's images are not in {IMAGES.parent}")
@pytest.mark.timeout(400)
def test_mnist_cnn_on_two_ranks_reaches_its_accuracy(tmp_path):
    ended = hpc_train("data", "import", IMAGES, "mnist", cwd=tmp_path)
    assert ended.code == 0, ended
    ended = hpc_train("data", "verify", "mnist", cwd=tmp_path)
    assert ended.code == 0, ended
    ended = hpc_train("run", "mnist-cnn", "run.dir=run", "-n", 2, cwd=tmp_path, seconds=300)
    assert ended.code == 0, ended
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "done"
    assert result["metrics"]["test"]["accuracy"] >= 0.985
