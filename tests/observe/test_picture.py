"""Pictures: what is written is what a PNG reader reads."""

import numpy as np
import pytest

from hpc_train.observe.picture import grid, is_picture, write_png


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_is_read_back_as_it_was(channels, tmp_path):
    from PIL import Image

    images = np.random.default_rng(0).random((5, channels, 40, 36))
    pixels = grid(images)
    assert pixels.shape == (2 * 40 + 2, 3 * 36 + 2 * 2, channels)
    write_png(tmp_path / "grid.png", pixels)
    with Image.open(tmp_path / "grid.png") as found:
        assert found.mode == {1: "L", 3: "RGB"}[channels]
        np.testing.assert_array_equal(np.array(found).reshape(pixels.shape), pixels)
    fourth = pixels[42:82, 0:36]
    np.testing.assert_array_equal(fourth, np.rint(images[3].transpose(1, 2, 0) * 255))
    assert [p.name for p in tmp_path.iterdir()] == ["grid.png"]


def test_small_images_are_enlarged_and_strange_values_cut_off():
    images = np.array([-1.0, 2.0, np.nan, 1.0]).reshape(1, 1, 2, 2)
    pixels = grid(images)
    assert pixels.shape == (32, 32, 1)
    assert pixels[::16, ::16, 0].tolist() == [[0, 255], [0, 255]]


def test_only_images_can_be_shown():
    shapes = [(1, 8, 8), (3, 8, 8), (8,), (2, 8, 8)]
    assert [is_picture(shape) for shape in shapes] == [True, True, False, False]
