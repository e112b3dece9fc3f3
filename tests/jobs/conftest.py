"""Stories share a small data set and configuration, and leave no process behind."""

import numpy as np
import pytest

from hpc_train.data.index import FieldInfo
from hpc_train.data.layout import Layout
from hpc_train.data.writer import ShardWriter

CONFIG = """\
[run]
name = "story"
epochs = 3
seed = 1

[data]
train = "{train}"
test = "{train}[:40]"
inputs = "x"
targets = "label"
batch_size = 16

[model]
name = "mlp"
hidden = [16]
activation = "tanh"

# gentle on purpose: at the edge of stability, training is chaotic and blows up the last bit
[optimizer]
name = "sgd"
lr = 0.02
momentum = 0.5

[precision]
dtype = "float64"
"""


@pytest.fixture(scope="session")
def blobs(tmp_path_factory):
    """A data set of 200 points in three clusters."""
    return write_blobs(tmp_path_factory.mktemp("data") / "blobs")


def write_blobs(folder, compression="none"):
    """The points, in chunks of 16."""
    random = np.random.default_rng(0)
    label = np.arange(200) % 3
    x = (random.standard_normal((200, 5)) + 2 * label[:, None]).astype(np.float32)
    fields = {"x": FieldInfo((5,), "float32"), "label": FieldInfo((), "int64")}
    with ShardWriter(folder, fields, Layout(16, 64, compression)) as writer:
        writer.append({"x": x, "label": label})
    return folder


@pytest.fixture
def config(tmp_path, blobs):
    """A configuration over `blobs`, in the test's own folder."""
    path = tmp_path / "story.toml"
    path.write_text(CONFIG.format(train=blobs))
    return path
