"""`hpc-train augment`: a picture of what happens to samples."""

from click.testing import CliRunner
from PIL import Image

from hpc_train.cli import cli
from hpc_train.errors import ConfigError, UsageError


def run(*words):
    return CliRunner().invoke(cli, ["augment", "digits-cnn", *words], catch_exceptions=True)


def test_it_draws_each_sample_and_what_becomes_of_it(tmp_path):
    path = tmp_path / "seen.png"
    result = run('augmentation=[{name = "crop", padding = 1}]', "--plot", str(path), "--num", "4")
    assert result.exit_code == 0, result.output
    assert "4 samples, each as it is and in 3 epochs" in result.output
    with Image.open(path) as picture:
        side = 4 * 32 + 3 * 2  # 8 pixels, four times as large, with gaps
        assert picture.size == (side, side)
        cells = [
            picture.crop((x * 34, y * 34, x * 34 + 32, y * 34 + 32)).tobytes()
            for y in range(4)
            for x in range(4)
        ]
    assert len({cells[0], cells[4], cells[8], cells[12]}) == 4  # four samples
    assert len(set(cells)) > 8


def test_mistakes_are_named():
    assert isinstance(run().exception, ConfigError)
    assert "no augmentation in this configuration" in str(run().exception)
    found = run('augmentation=[{name = "rotatoin"}]').exception
    assert "did you mean 'rotation'" in str(found)


def test_there_must_be_samples_enough():
    found = run('augmentation=[{name = "flip"}]', "data.train=builtin:digits/train[:5]")
    assert isinstance(found.exception, UsageError)
    assert "fewer samples than rows (samples: 5)" in str(found.exception)
