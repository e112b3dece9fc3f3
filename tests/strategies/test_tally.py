"""The tally: what is packed comes back, summed over ranks."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.plan import Plan
from hpc_train.strategies import Layout, Tally
from hpc_train.strategies.tally import FLAGS

tallies = st.builds(
    Tally,
    weight=st.integers(0, 1000).map(float),
    loss=st.integers(-100, 100).map(float),
    sums=st.fixed_dictionaries({"accuracy": st.integers(0, 9).map(float), "mae": st.just(0.5)}),
    flags=st.sets(st.sampled_from(FLAGS)),
    digest=st.integers(0, 2**32 - 1),
    busy_seconds=st.integers(0, 5).map(float),
)


@given(tallies=st.lists(tallies, min_size=1, max_size=6))
def test_the_sum_of_all_vectors_says_what_every_rank_said(tallies):
    layout = Layout(["accuracy", "mae"], len(tallies))
    plan = Plan(tuple(range(1, len(tallies) + 1)))
    vectors = [
        layout.pack(tally, rank, plan if rank == 0 else None) for rank, tally in enumerate(tallies)
    ]
    assert all(vector.shape == (layout.size,) for vector in vectors)
    total = layout.unpack(np.sum(vectors, axis=0))
    assert total.weight == sum(t.weight for t in tallies)
    assert total.loss == sum(t.loss for t in tallies)
    assert total.sums["accuracy"] == sum(t.sums["accuracy"] for t in tallies)
    assert total.flags == {flag: sum(flag in t.flags for t in tallies) for flag in FLAGS}
    assert total.digest == sum(t.digest for t in tallies) % 2**32
    assert total.busy_seconds == tuple(t.busy_seconds for t in tallies)
    assert total.counts == plan.counts


def test_the_mean_loss_is_over_the_weights_and_nan_without_any():
    layout = Layout(["accuracy"], 1)
    total = layout.unpack(layout.pack(Tally(4.0, 10.0, {"accuracy": 3.0}), 0, Plan((1,))))
    assert (total.mean_loss, total.sums) == (2.5, {"accuracy": 3.0})
    empty = layout.unpack(layout.pack(Tally(), 0, Plan((1,))))
    assert math.isnan(empty.mean_loss)


def test_what_was_claimed_is_told_where_ranks_claim():
    layout, plan = Layout(["accuracy"], 3, claims=True), Plan((1, 2, 3))
    told = [(4, 0.5), (0, 0.0), (7, 1.25)]
    vectors = [
        layout.pack(Tally(claimed=n, claimed_seconds=t), rank, None if rank else plan)
        for rank, (n, t) in enumerate(told)
    ]
    total = layout.unpack(np.sum(vectors, axis=0))
    assert (total.claimed, total.claimed_seconds) == ((4, 0, 7), (0.5, 0.0, 1.25))
    assert total.counts == plan.counts
    plain = Layout(["accuracy"], 3)
    assert layout.size == plain.size + 6
    assert plain.unpack(plain.pack(Tally(claimed=4), 0, plan)).claimed == ()
