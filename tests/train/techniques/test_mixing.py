"""Mixup and cutmix: what happens to inputs, and how partners are chosen."""

import numpy as np
import pytest
import torch

from hpc_train.data import partners
from hpc_train.errors import ConfigError
from hpc_train.plan import Batch, Work
from hpc_train.tasks import TensorBatch
from hpc_train.train.techniques import mixing
from tests.train.runs import trainer
from tests.train.techniques.test_weights import config as plain_config

N = 8


def config(**regularization):
    made = plain_config(**regularization)
    return made.model_copy(update={"data": made.data.model_copy(update={"targets": ["y"]})})


def mixed(number=0, shape=(1, 10, 12), **regularization):
    technique = mixing.make(config(**regularization))
    torch.manual_seed(number)
    x, other = torch.rand(2, N, *shape, dtype=torch.float64)
    y, z = torch.arange(N), torch.arange(N) + 10
    partner = TensorBatch({"x": other}, {"y": z}, torch.arange(N))
    batch = Batch(number, 0, number * N, number * N + N)
    technique.begin(batch)
    given = TensorBatch({"x": x}, {"y": y}, torch.arange(N), partner=partner)
    found = technique.transform(given, Work(batch, 0, N))
    assert found.partner is None
    assert torch.equal(found.mixed.targets["y"], z)
    assert torch.equal(found.targets["y"], y)
    return x, other, found.inputs["x"], found.mixed.share


def test_mixup_is_the_weighted_mean():
    shares = []
    for number in range(50):
        x, other, out, share = mixed(number, mixup=1.0)
        torch.testing.assert_close(out, share * x + (1 - share) * other)
        shares.append(share)
    assert 0.3 < np.mean(shares) < 0.7
    assert len(set(shares)) == 50
    few = [mixed(number, mixup=0.1)[3] for number in range(50)]
    assert np.mean([min(s, 1 - s) for s in few]) < np.mean([min(s, 1 - s) for s in shares]) / 2


def test_cutmix_takes_a_box_and_counts_its_pixels():
    sizes = set()
    for number in range(30):
        x, other, out, share = mixed(number, cutmix=1.0)
        taken = (out == other).all(1)[0]
        assert torch.equal(out, torch.where(taken, other, x))
        assert float(taken.double().mean()) == pytest.approx(1 - share)
        rows, columns = taken.any(1), taken.any(0)
        assert torch.equal(taken, rows[:, None] & columns[None, :])
        sizes.add((int(rows.sum()), int(columns.sum())))
    assert len(sizes) > 10


def test_both_take_turns_by_chance():
    kinds = []
    for number in range(40):
        x, other, out, _ = mixed(number, mixup=1.0, cutmix=1.0)
        kinds.append(bool(((out == x) | (out == other)).all()))
    assert 8 < sum(kinds) < 32


def test_partners_are_a_permutation_that_batch_and_seed_decide():
    batch = Batch(3, 1, 192, 256)
    found = partners(5, batch)
    assert sorted(found) == list(range(64))
    assert (found == partners(5, Batch(9, 1, 192, 256))).all()  # whatever its number
    others = [
        partners(6, batch),
        partners(5, Batch(3, 2, 192, 256)),
        partners(5, Batch(3, 1, 0, 64)),
    ]
    assert all((found != other).any() for other in others)


def test_mistakes_are_named(tmp_path):
    with pytest.raises(ConfigError, match="needs targets to mix"):
        mixing.make(plain_config(mixup=0.2))
    with pytest.raises(ConfigError, match="cutmix needs images"):
        mixed(shape=(7,), cutmix=1.0)
    assert mixing.make(config()) is None
    changed = trainer(tmp_path, regularization={"mixup": 0.4})
    plain = trainer(tmp_path, run={"dir": str(tmp_path / "plain")})
    assert changed.fit().metrics == plain.fit().metrics == {}
    assert not torch.equal(*[next(m.model.parameters()) for m in (changed, plain)])
