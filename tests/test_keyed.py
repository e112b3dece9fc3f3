"""Bits by sample: Philox itself, whatever else is in the batch."""

import pytest
import torch

from hpc_train.keyed import normals, uniforms, words
from hpc_train.philox import key_of, rounds

IDS = torch.tensor([0, 5, 2**33 + 7])


def test_words_are_philox():
    found = words(123456789012345, 3, IDS, 11)
    for row, sample in zip(found.tolist(), IDS.tolist(), strict=True):
        counters = [(k, sample & 0xFFFFFFFF, sample >> 32, 3) for k in range(3)]
        expected = [w for c in counters for w in rounds(c, key_of(123456789012345))]
        assert row == expected[:11]


@pytest.mark.parametrize("count", [1, 4, 7])
def test_a_sample_has_the_same_numbers_in_any_batch(count):
    whole = normals(1, 2, IDS, count, torch.float64)
    assert whole.shape == (3, count)
    for place in range(3):
        alone = normals(1, 2, IDS[place : place + 1], count, torch.float64)
        torch.testing.assert_close(alone[0], whole[place], rtol=1e-14, atol=0)
    assert torch.equal(uniforms(1, 2, IDS.flip(0), count).flip(0), uniforms(1, 2, IDS, count))


def test_numbers_are_spread_as_they_should():
    ids = torch.arange(500)
    uniform = uniforms(7, 0, ids, 100)
    assert 0 <= float(uniform.min()) < 0.001 < 0.999 < float(uniform.max()) < 1
    assert abs(float(uniform.mean()) - 0.5) < 0.005
    normal = normals(7, 0, ids, 101, torch.float64)
    assert abs(float(normal.mean())) < 0.02
    assert abs(float(normal.std()) - 1) < 0.02
    inside = float((normal.abs() < 1).double().mean())
    assert abs(inside - 0.6827) < 0.01


def test_seed_epoch_and_sample_matter():
    base = words(1, 0, IDS, 4)
    assert not torch.equal(base, words(2, 0, IDS, 4))
    assert not torch.equal(base, words(1, 1, IDS, 4))
    assert len({tuple(row) for row in base.tolist()}) == 3
