"""The recipes digits-features and digits-transfer: what was learned on other digits helps."""

import pytest

from hpc_train import recipes
from hpc_train.config import load
from hpc_train.data import open_dataset
from hpc_train.train.trainer import Trainer
from tests.train.runs import comm

QUICK = ["checkpoint.every=200 steps", "run.evaluate=never"]


def run(folder, name, *overrides):
    words = [f"run.dir={folder}", *QUICK, *overrides]
    trained = Trainer(config=load(recipes.find(name), words).config, comm=comm(), quiet=True)
    return trained.fit().metrics["test"]["accuracy"]


@pytest.mark.timeout(120)
def test_all_but_the_head_is_taken_over_and_learns_other_digits(tmp_path, caplog):
    assert run(tmp_path / "features", "digits-features", "run.epochs=4") > 0.9
    source = f"transfer.source={tmp_path / 'features'}"
    with caplog.at_level("INFO"):
        found = run(tmp_path / "transferred", "digits-transfer", source, "run.epochs=10")
    assert found > 0.6  # 0.2 by chance
    told = [line for line in caplog.messages if line.startswith("transfer: ")]
    assert told[0].startswith("transfer: 16 tensors loaded")
    assert told[1:] == ["transfer: learned anew: head.weight, head.bias"]


def test_twenty_images_of_each_class():
    train = open_dataset("builtin:digits-5-9/train", ["image", "label"], 64)
    test = open_dataset("builtin:digits-5-9/test", ["image", "label"], 64)
    assert (train.num_samples, test.num_samples) == (100, 796)
    assert train.fields["label"].classes == ("5", "6", "7", "8", "9")
