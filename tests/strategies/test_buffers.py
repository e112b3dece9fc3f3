"""Module buffers: merged by share, and taken back after a batch that failed."""

import copy

import pytest
import torch
from torch import nn

from hpc_train.strategies.buffers import BufferSnapshot, merge_buffers
from tests.groups import run_ranks


class Ranks:
    """A group with the one thing that merging needs beside agreement."""

    def __init__(self, group):
        self._group = group
        self.world, self.sum, self.gather = group.world, group.sum, group.gather

    def spread(self, values, root=0):
        values[:] = self._group.broadcast(values.tolist(), root)


def normed(rank):
    model = nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(3))
    model[0].running_mean.fill_(float(rank))
    model[1].running_var.fill_(10.0 * rank)
    model[1].num_batches_tracked.fill_(5 + rank)
    return model


@pytest.mark.parametrize("shares", [(1, 1, 1), (0, 3, 1), (0, 0, 8)])
def test_statistics_are_the_mean_by_share_and_counters_of_the_first_with_samples(shares):
    def merge(group):
        model = normed(group.world.rank)
        merge_buffers(model, Ranks(group), shares[group.world.rank])
        return model

    models = run_ranks(3, merge)
    mean = sum(rank * share for rank, share in enumerate(shares)) / sum(shares)
    first = next(rank for rank, share in enumerate(shares) if share)
    for model in models:
        assert model[0].running_mean.tolist() == pytest.approx([mean] * 2)
        assert model[1].running_var.tolist() == pytest.approx([10 * mean] * 3)
        assert int(model[1].num_batches_tracked) == 5 + first


def test_without_samples_nothing_changes_and_a_rank_without_any_may_hold_rubbish():
    def merge(group, shares):
        model = normed(group.world.rank)
        if group.world.rank == 1:
            model[0].running_mean.fill_(float("nan"))
        merge_buffers(model, Ranks(group), shares[group.world.rank])
        return model[0].running_mean.tolist()

    assert run_ranks(2, lambda group: merge(group, (0, 0)))[0] == [0.0, 0.0]
    assert run_ranks(2, lambda group: merge(group, (4, 0))) == [[0.0, 0.0]] * 2


def test_a_snapshot_brings_back_every_buffer():
    model = normed(1)
    before = copy.deepcopy(model.state_dict())
    snapshot = BufferSnapshot(model)
    for _ in range(2):
        snapshot.take()
        model[0](torch.full((4, 2), float("nan")))
        assert model[0].running_mean.isnan().all()
        snapshot.restore()
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, before[name])
