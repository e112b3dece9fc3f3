"""Synchronous batch norm: any split equals torch's own layer on the whole batch; failures meet."""

import numpy as np
import pytest
import torch
from torch import nn

from hpc_train.errors import HpcTrainError, PeerError
from hpc_train.models.sync_batchnorm import (
    Meeting,
    SyncBatchNorm,
    find_meeting,
    has_plain,
    synchronize,
)
from tests.groups import run_ranks

SPLITS = [[12], [5, 7], [0, 12], [3, 0, 9], [1, 11]]


def layer(kind, momentum=0.1):
    torch.manual_seed(1)
    made = kind(3, momentum=momentum).double()
    with torch.no_grad():
        made.weight.uniform_(0.5, 2)
        made.bias.uniform_(-1, 1)
        made.running_mean.uniform_(-1, 1)
    return made


def inputs(kind):
    torch.manual_seed(2)
    shape = {nn.BatchNorm1d: (12, 3), nn.BatchNorm2d: (12, 3, 4, 2)}[kind]
    x = torch.randn(shape, dtype=torch.float64) * 3 + 100  # far from 0: sums must not cancel
    return x, torch.randn(shape, dtype=torch.float64)


def train(made, x, slope):
    """Output, gradients and running statistics of two steps."""
    x = x.clone().requires_grad_()
    for _ in range(2):
        out = made(x)
    (out * slope).sum().backward()
    return out.detach(), x.grad, made


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_any_split_equals_torchs_layer_on_the_whole_batch(kind, split, momentum):
    x, slope = inputs(kind)
    out, grad, whole = train(layer(kind, momentum), x, slope)
    starts = np.cumsum([0, *split])
    layers = [layer(kind, momentum) for _ in split]  # threads share torch's generator

    def rank(group):
        meeting = Meeting()
        meeting.attach(group.sum)
        mine = slice(starts[group.world.rank], starts[group.world.rank + 1])
        with meeting.step():
            made = SyncBatchNorm(layers[group.world.rank], meeting)
            return train(made, x[mine], slope[mine])

    parts = run_ranks(len(split), rank)
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), out, **close)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]), grad, **close)
    for name in ("weight", "bias"):
        total = sum(getattr(part[2], name).grad for part in parts)
        torch.testing.assert_close(total, getattr(whole, name).grad, **close)
    for _, _, made in parts:
        for name, buffer in whole.named_buffers():
            torch.testing.assert_close(getattr(made, name), buffer, **close)


@pytest.mark.parametrize("where", ["before", "between", "after"])
def test_a_rank_that_fails_takes_the_others_along(where):
    x, slope = inputs(nn.BatchNorm1d)
    layers = [layer(nn.BatchNorm1d) for _ in range(3)]

    def rank(group):
        meeting = Meeting()
        meeting.attach(group.sum)
        made = SyncBatchNorm(layers[group.world.rank], meeting)
        bad = group.world.rank == 1
        try:
            with meeting.step():
                if bad and where == "before":
                    raise RuntimeError("broken sample")
                out = made(x)
                if bad and where == "between":
                    raise RuntimeError("broken sample")
                (out * slope).sum().backward()
                if bad and where == "after":
                    raise RuntimeError("broken sample")
        except Exception as error:
            failed = type(error)
        with meeting.step():  # and all are together again
            return failed, int(meeting.sum(torch.ones(1, dtype=torch.float64)))

    assert run_ranks(3, rank) == [(PeerError, 3), (RuntimeError, 3), (PeerError, 3)]


def test_alone_and_in_evaluation_it_is_torchs():
    x, _ = inputs(nn.BatchNorm2d)
    plain, sync = layer(nn.BatchNorm2d), SyncBatchNorm(layer(nn.BatchNorm2d), Meeting())
    torch.testing.assert_close(sync(x), plain(x))
    torch.testing.assert_close(sync.eval()(x), plain.eval()(x))
    with pytest.raises(HpcTrainError, match="more than one value per channel"):
        SyncBatchNorm(layer(nn.BatchNorm1d), Meeting())(x[:1, :, 0, 0])


def test_gradients_are_those_of_finite_differences():
    made = SyncBatchNorm(layer(nn.BatchNorm1d), Meeting())
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: made(x), (x,))


def test_half_precision_is_computed_in_single():
    x, _ = inputs(nn.BatchNorm1d)
    made = SyncBatchNorm(layer(nn.BatchNorm1d).float(), Meeting())
    low = made(x.bfloat16())
    assert low.dtype == torch.bfloat16
    high = SyncBatchNorm(layer(nn.BatchNorm1d).float(), Meeting())(x.bfloat16().float())
    torch.testing.assert_close(low.float(), high, rtol=0.01, atol=0.01)


def test_all_layers_of_a_model_share_a_meeting():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    assert has_plain(model)
    assert find_meeting(model) is None
    names = list(model.state_dict())
    made = synchronize(model)
    assert list(made.state_dict()) == names
    assert not has_plain(made)
    assert made[1].meeting is made[2][0].meeting is find_meeting(made)
    assert isinstance(synchronize(nn.BatchNorm1d(4)), SyncBatchNorm)
