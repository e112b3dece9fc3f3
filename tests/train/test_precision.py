"""Mixed precision: torch's own autocast and scaler, on flat buffers and in runs."""

from typing import ClassVar

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from hpc_train.errors import HpcTrainError
from hpc_train.optim import Settings
from hpc_train.strategies import Learner, Tally
from hpc_train.tasks import Classification, Losses
from hpc_train.train.device import set_tf32
from hpc_train.train.sums import Sums, totals
from hpc_train.train.techniques.loss_scaling import LossScaling, Scale
from tests.train.runs import records, trainer, weights

OPTIMIZER = {"name": "sgd", "lr": 0.02, "momentum": 0.5}


@pytest.mark.parametrize("seed", range(4))
def test_the_scale_is_torchs(seed):
    generator = torch.Generator().manual_seed(seed)
    overflows = (torch.rand(60, generator=generator) < 0.2).tolist()
    value, good = torch.full((1,), 1024.0), torch.zeros(1, dtype=torch.int32)
    scale = Scale(1024.0, growth=3.0, backoff=0.25, interval=4)
    for overflow in overflows:
        torch._amp_update_scale_(value, good, torch.full((1,), float(overflow)), 3.0, 0.25, 4)
        scale = scale.after_overflow() if overflow else scale.after_good()
        assert (scale.value, scale.good) == (float(value), int(good))


def test_a_scale_stays_finite():
    assert Scale(3e38, good=1, interval=2).after_good().value == 3e38


def test_the_factor_is_exact_and_taken_back():
    model = nn.Linear(3, 2)
    learner = Learner("main", model.named_parameters(), "sgd", Settings())
    scaling = LossScaling(Scale(65536.0), 48)
    factor = scaling.loss_factor("main")
    assert factor == 65536 / 64
    inputs = torch.randn(48, 3)
    learner.zero()
    (model(inputs).square().sum() * factor).backward()
    scaling.gradients(learner, Tally())
    scaled = [parameter.grad.clone() for parameter in model.parameters()]
    learner.zero()
    model(inputs).square().sum().backward()
    plain = [parameter.grad for parameter in model.parameters()]
    assert all(map(torch.equal, scaled, plain))


def autocast_by_hand(dtype, steps=5):
    """Batches 0-6, 7-13, ... of `trainer`, in order, by torch's autocast and SGD."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.5)
    for first in range(0, 7 * steps, 7):
        ids = torch.arange(first, min(33, first + 7))
        inputs = torch.stack([ids, ids * 2, ids * 3], 1).float() * 0.01
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=dtype):
            loss = cross_entropy(model(inputs), ids % 7)
        loss.backward()
        optimizer.step()
    return weights(model)


class Seen(Classification):
    """Remembers in which numbers the network computed."""

    dtypes: ClassVar[set[torch.dtype]] = set()

    def losses(self, model, batch):
        self.dtypes.add(batch.through(model).dtype)
        return super().losses(model, batch)


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_a_run_is_torchs_autocast_with_weights_in_float32(tmp_path, name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 7))
    options = {
        "precision": {"autocast": name},
        "data": {"shuffle": "none"},
        "optimizer": OPTIMIZER,
        "run": {"epochs": 1},
        "task": {"name": "tests.train.test_precision:Seen"},
    }
    Seen.dtypes.clear()
    trainer(tmp_path, model, **options).fit()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = autocast_by_hand(getattr(torch, name))
    # float16's gradients are rounded at another scale, bfloat16's are summed in another order
    assert torch.allclose(weights(model), expected, rtol=0, atol=2e-4)
    assert Seen.dtypes == {getattr(torch, name)}


def test_an_overflow_skips_the_step_and_lowers_the_scale(tmp_path):
    options = {
        "precision": {"autocast": "float16", "loss_scale": 2.0**40, "growth_interval": 4},
        "optimizer": OPTIMIZER,
    }
    made = trainer(tmp_path, run={"epochs": 12, "dir": str(tmp_path / "whole")}, **options)
    result = made.fit()
    told = [r["text"] for r in records(tmp_path, "event", "whole") if r["event"] == "overflow"]
    assert told[:2] == ["loss scale 5.49756e+11", "loss scale 2.74878e+11"]
    assert len(told) > 5
    assert result.step == 60 - len(told)
    steps = records(tmp_path, "step", "whole")
    assert steps[len(told) // 2]["step"] < len(told)  # no update was counted for those skipped
    trainer(tmp_path, run={"epochs": 3}, **options).fit()
    again = trainer(tmp_path, run={"epochs": 12}, **options)
    again.fit(resume=tmp_path / "run")
    assert torch.equal(weights(again.model), weights(made.model))
    found = [r["text"] for r in records(tmp_path, "event") if r["event"] == "overflow"]
    assert found == told


class Broken(Classification):
    """Finite losses, whose gradient is not."""

    def losses(self, model, batch):
        found = super().losses(model, batch)
        return Losses(found.values + (batch.through(model) * 0).sum(1).sqrt(), sums=found.sums)


def test_a_gradient_that_no_scale_mends_ends_the_run(tmp_path):
    task = {"name": "tests.train.test_precision:Broken"}
    precision = {"autocast": "float16", "loss_scale": 4.0}
    with pytest.raises(HpcTrainError, match="gradient must be finite"):
        trainer(tmp_path, task=task, precision=precision).fit()
    told = [r["text"] for r in records(tmp_path, "event")]
    assert told == ["loss scale 2", "loss scale 1", "loss scale 0.5"]


def test_losses_in_half_precision_are_counted_exactly():
    sums = Sums()
    sums.add(totals(Losses(torch.ones(4099, dtype=torch.bfloat16)), 4099), 4099)
    tally = sums.tally()
    assert (tally.weight, tally.loss) == (4099.0, 4099.0)


def test_tf32_is_told_to_torch():
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    try:
        for allowed in (True, False):
            set_tf32(allowed)
            set_tf32(None)
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
