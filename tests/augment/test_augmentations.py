"""Augmentations: what each does to a sample, and that nothing but the sample decides it."""

import math

import pytest
import torch

from hpc_train.augment import AUGMENTATIONS, Chosen, Pipeline
from hpc_train.augment.augmentation import Draws
from hpc_train.errors import ConfigError

N = 40
IDS = torch.arange(100, 100 + N)


def images(channels=1, height=12, width=10):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(N, channels, height, width, generator=generator, dtype=torch.float64)


def pipeline(*names, probability=1.0, **arguments):
    made = [AUGMENTATIONS[name](**arguments) for name in names]
    return Pipeline([Chosen(one, probability, place) for place, one in enumerate(made)], seed=3)


def shapes_for(name):
    return images(3) if name == "color" else images()


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_each_changes_samples_by_seed_epoch_and_id_alone(name):
    x = shapes_for(name)
    whole = pipeline(name)(x, 2, IDS)
    assert whole.shape == x.shape
    assert whole.dtype == x.dtype
    assert not torch.allclose(whole, x)
    parts = [pipeline(name)(x[s], 2, IDS[s]) for s in (slice(0, 7), slice(7, 8), slice(8, N))]
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    if name != "flip":  # which has nothing to draw beside whether
        assert not torch.allclose(pipeline(name)(x, 3, IDS), whole)
        assert not torch.allclose(pipeline(name)(x, 2, IDS + 1), whole)
    assert pipeline(name)(x[:0], 2, IDS[:0]).shape == (0, *x.shape[1:])


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_probability_decides_for_each_sample(name):
    x = shapes_for(name)
    found = pipeline(name, probability=0.5)(x, 0, IDS)
    same = [torch.allclose(a, b, atol=1e-9) for a, b in zip(found, x, strict=True)]
    assert N * 0.2 < sum(same) < N * 0.8


@pytest.mark.parametrize(("axis", "dim"), [("horizontal", 3), ("vertical", 2)])
def test_flips_mirror(axis, dim):
    x = images()
    torch.testing.assert_close(pipeline("flip", axis=axis)(x, 0, IDS), x.flip(dim))


def test_crops_are_the_padded_image_cut_at_whole_pixels():
    x = images()
    found = pipeline("crop", padding=2)(x, 0, IDS)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    places = set()
    for one, wide in zip(found, padded, strict=True):
        fits = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if torch.allclose(one, wide[:, r : r + 12, c : c + 10], atol=1e-9)
        ]
        assert len(fits) == 1
        places.add(fits[0])
    assert len(places) > 10


def draws(value, count):
    return Draws(torch.full((1, count), value, dtype=torch.float64), 0, 0, IDS[:1])


def test_matrices_are_those_of_the_textbook():
    turn = AUGMENTATIONS["rotation"](degrees=30).matrices(draws(1.0, 1), 8, 8)[0]
    angle = math.radians(30)
    expected = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]
    torch.testing.assert_close(turn, torch.tensor(expected, dtype=torch.float64))
    larger = AUGMENTATIONS["scale"](smallest=0.5, largest=2.0).matrices(draws(1.0, 1), 8, 8)[0]
    assert larger[0, 0] == larger[1, 1] == 0.5  # twice as large: neighbours are half as far
    aside = AUGMENTATIONS["shift"](fraction=0.25).matrices(draws(0.0, 2), 8, 16)[0]
    assert aside[:, 2].tolist() == [-4, -2]
    slant = AUGMENTATIONS["shear"](degrees=45).matrices(draws(1.0, 1), 8, 8)[0]
    torch.testing.assert_close(slant[0, 1], torch.tensor(1.0, dtype=torch.float64))


def test_a_quarter_turn_is_exact_on_squares():
    x = images(height=9, width=9)

    class Quarter:
        num_draws = 0

        def matrices(self, draws, height, width):
            one = torch.tensor([[0.0, -1, 0], [1, 0, 0]], dtype=torch.float64)
            return one.repeat(len(draws.uniform), 1, 1)

    found = Pipeline([Chosen(Quarter(), 1.0, 0)], 0)(x, 0, IDS)
    torch.testing.assert_close(found, x.rot90(1, (2, 3)))


def test_movements_in_a_row_interpolate_once():
    x = images()
    twice = pipeline("flip", "flip")(x, 0, IDS)
    torch.testing.assert_close(twice, x)
    there_and_back = pipeline("rotation", degrees=40)

    class Back:
        num_draws = 1

        def matrices(self, given, height, width):
            forth = there_and_back._groups[0][1][0].augmentation.matrices(given, height, width)
            return torch.stack([torch.cat((m[:, :2].inverse(), m[:, 2:]), dim=1) for m in forth])

    forth = there_and_back._groups[0][1][0]
    both = Pipeline([forth, Chosen(Back(), 1.0, forth.place)], 3)  # with the same numbers
    torch.testing.assert_close(both(x, 0, IDS), x)


def test_colors_keep_what_they_should():
    x = images(3)
    gray = (x * torch.tensor([0.299, 0.587, 0.114], dtype=x.dtype).view(1, 3, 1, 1)).sum(1)
    contrast = pipeline("color", brightness=0.0, contrast=0.5)(x, 0, IDS)
    new_gray = (contrast * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    torch.testing.assert_close(new_gray.mean((1, 2)), gray.mean((1, 2)), rtol=1e-6, atol=1e-6)
    saturated = pipeline("color", brightness=0.0, contrast=0.0, saturation=0.9)(x, 0, IDS)
    new_gray = (saturated * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    torch.testing.assert_close(new_gray, gray, rtol=1e-6, atol=1e-6)
    bright = pipeline("color", brightness=0.5, contrast=0.0)(x, 0, IDS) / x
    assert 0.5 <= float(bright.min()) < 0.7 < 1.3 < float(bright.max()) <= 1.5
    assert torch.allclose(bright.flatten(1).std(1), torch.zeros(N, dtype=x.dtype), atol=1e-9)


def test_cutout_erases_a_square():
    x = images() + 1
    holes = pipeline("cutout", size=4)(x, 0, IDS) == 0
    assert int(holes.sum((1, 2, 3)).max()) == 16
    assert int(holes.sum((1, 2, 3)).min()) >= 4  # one quarter, in a corner
    assert int(holes.any(2).sum((1, 2)).max()) == 4
    assert (holes.sum((1, 2, 3)) == holes.any(2).sum((1, 2)) * holes.any(3).sum((1, 2))).all()


@pytest.mark.parametrize("axis", [-1, 0])
def test_masking_erases_a_stretch(axis):
    x = torch.rand(N, 9, 9, dtype=torch.float64) + 1
    holes = pipeline("masking", length=5, axis=axis)(x, 0, IDS) == 0
    other = 1 if axis == -1 else 2
    assert (holes.any(other) == holes.all(other)).all()
    lengths = holes.any(other).sum(1)
    assert set(lengths.tolist()) == {0, 1, 2, 3, 4, 5}
    for row in holes.any(other).tolist():  # in one piece
        assert "".join("01"[v] for v in row).strip("0").count("0") == 0


def test_noise_has_the_size_that_is_asked_for():
    x = images() * 50
    assert abs(float((pipeline("noise", std=0.3)(x, 0, IDS) - x).std()) - 0.3) < 0.02
    relative = (pipeline("jitter", fraction=0.1)(x, 0, IDS) - x) / x.std(
        -1, correction=0, keepdim=True
    )
    assert abs(float(relative.std()) - 0.1) < 0.01


@pytest.mark.parametrize(
    ("name", "arguments", "shape", "says"),
    [
        ("flip", {"axis": "diagonal"}, None, "unknown axis"),
        ("crop", {"padding": 0}, None, "padding must be an integer >= 1"),
        ("crop", {"padding": True}, None, "padding must be an integer >= 1"),
        ("rotation", {"degrees": 270}, None, r"degrees must be a number in \(0, 180\]"),
        ("scale", {"smallest": 2.0, "largest": 1.0}, None, "largest must be a number in"),
        ("noise", {"std": "big"}, None, "std must be a number > 0"),
        ("shear", {}, (N, 7), "need images of shape"),
        ("cutout", {}, (N, 7), "needs images of shape"),
        ("color", {"saturation": 0.5}, (N, 1, 4, 4), "images of three channels"),
        ("masking", {"axis": 2}, (N, 3, 4), "axis must be one of the sample's 2"),
    ],
)
def test_mistakes_are_named(name, arguments, shape, says):
    def use():
        pipeline(name, **arguments)(torch.zeros(shape or (N, 1, 4, 4)), 0, IDS)

    with pytest.raises(ConfigError, match=says):
        use()
