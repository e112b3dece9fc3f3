"""Curves of the learning rate: each is torch's own scheduler, as a pure function."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim import lr_scheduler as torch_schedulers

from hpc_train.errors import UsageError
from hpc_train.optim import CURVES, SCALES, LearningRate, Shape, batch_scale

LENGTH = 60
SHAPE = Shape(LENGTH, final=0.0, every=7, gamma=0.5, power=2.0, growth=2, start=0.1, peak=0.3)

# name -> torch's scheduler, and how the shape differs from the one above
TORCH = {
    "constant": (lambda o: torch_schedulers.LambdaLR(o, lambda t: 1.0), {}),
    "plateau": (lambda o: torch_schedulers.LambdaLR(o, lambda t: 1.0), {}),
    "step": (lambda o: torch_schedulers.StepLR(o, 7, 0.5), {}),
    "exponential": (lambda o: torch_schedulers.ExponentialLR(o, 0.9), {"gamma": 0.9, "every": 1}),
    "inverse_time": (lambda o: torch_schedulers.LambdaLR(o, lambda t: 1 / (1 + 0.5 * t / 7)), {}),
    "polynomial": (lambda o: torch_schedulers.PolynomialLR(o, LENGTH, 2.0), {}),
    "polynomial, linear": (
        lambda o: torch_schedulers.LinearLR(o, 1.0, 0.2, LENGTH),
        {"final": 0.2, "power": 1.0},
    ),
    "cosine": (lambda o: torch_schedulers.CosineAnnealingLR(o, LENGTH), {}),
    "cosine, to a tenth": (
        lambda o: torch_schedulers.CosineAnnealingLR(o, LENGTH, 0.1),
        {"final": 0.1},
    ),
    "cosine_restarts": (lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 7, 2), {}),
    "cosine_restarts, even": (
        lambda o: torch_schedulers.CosineAnnealingWarmRestarts(o, 7, 1, 0.3),
        {"growth": 1, "final": 0.3},
    ),
    "one_cycle": (
        lambda o: torch_schedulers.OneCycleLR(
            o, 1.0, LENGTH, 0.3, div_factor=10, final_div_factor=100, cycle_momentum=False
        ),
        {"final": 0.001},
    ),
}


@pytest.mark.parametrize("case", TORCH)
def test_each_curve_is_torchs_scheduler(case):
    make, changes = TORCH[case]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    rate = LearningRate(case.partition(",")[0], LENGTH, 0, replace(SHAPE, **changes))
    for batch in range(LENGTH):
        expected = optimizer.param_groups[0]["lr"]
        assert rate.factor(batch) == pytest.approx(expected, rel=1e-9, abs=1e-9), batch
        optimizer.step()
        if batch < LENGTH - 1:
            scheduler.step()


def test_all_curves_are_compared():
    assert {case.partition(",")[0] for case in TORCH} == set(CURVES)


@pytest.mark.parametrize("name", sorted(CURVES))
def test_a_warm_up_is_torchs_linear_one_before_any_curve(name):
    plain = LearningRate(name, 20, 0, SHAPE)
    warm = LearningRate(name, 24, 4, SHAPE)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=plain.factor(0))
    scheduler = torch_schedulers.LinearLR(optimizer, 1 / 5, 1.0, 4)
    for batch in range(4):
        assert warm.factor(batch) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert [warm.factor(4 + t) for t in range(20)] == [plain.factor(t) for t in range(20)]


@given(
    name=st.sampled_from(sorted(CURVES)),
    num_batches=st.integers(1, 50),
    warmup=st.integers(0, 60),
    final=st.floats(0, 1),
    every=st.integers(1, 60),
    gamma=st.floats(0.01, 1),
    growth=st.integers(1, 4),
    peak=st.floats(0.001, 0.999),
    batch=st.integers(0, 100),
)
def test_factors_lie_in_their_range(
    name, num_batches, warmup, final, every, gamma, growth, peak, batch
):
    shape = Shape(1, final, every, gamma, growth=growth, peak=peak)
    factor = LearningRate(name, num_batches, warmup, shape).factor(batch)
    assert 0 <= factor <= 1
    assert batch < warmup or factor >= min(final, shape.start) - 1e-12
    assert math.isfinite(factor)


def test_the_rate_grows_with_the_global_batch():
    assert batch_scale("none", 1024, 256) == 1
    assert batch_scale("linear", 1024, 256) == 4
    assert batch_scale("sqrt", 1024, 256) == 2
    assert batch_scale("sqrt", 64, 256) == 0.5
    assert sorted(SCALES) == ["linear", "none", "sqrt"]
    scaled = LearningRate("cosine", 10, 2, SHAPE, scale=4.0)
    plain = LearningRate("cosine", 10, 2, SHAPE)
    assert [scaled.factor(t) for t in range(10)] == [4 * plain.factor(t) for t in range(10)]
    with pytest.raises(UsageError, match='unknown scaling of the learning rate "cube"'):
        batch_scale("cube", 1, 1)
