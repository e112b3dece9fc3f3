"""When compression pays, and how a buffer is cut among lanes."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.comm.compressed import cut_between
from hpc_train.comm.compression import Matrix, Terms
from hpc_train.comm.compression.cost import Link, Offer, _offers, judge

PLAIN = Offer(1, 20_000_000, 0.0)


@pytest.mark.parametrize(
    ("bits_per_second", "computing", "expected"),
    [(1e9, 0.01, "few"), (1e9, 0.2, "none"), (100e9, 0.01, "none"), (1e8, 0.2, "few")],
)
def test_fewer_bytes_pay_over_a_slow_link(bits_per_second, computing, expected):
    link = Link(50e-6, bits_per_second / 8)
    verdict = judge(link, {"none": PLAIN, "few": Offer(2, 1_000_000, computing)})
    assert verdict.name == expected
    assert "ms plain" in verdict.reason


def test_latency_counts_in_every_round():
    offers = {"none": Offer(1, 1_000_000, 0.0), "few": Offer(50, 0, 0.0)}
    assert judge(Link(1e-6, 1e9), offers).name == "few"
    assert judge(Link(1e-4, 1e9), offers).name == "none"


def test_what_compressors_offer():
    layout = [Matrix(0, (1000, 1000))]
    offers = _offers(2, 1, [1_000_000], [layout], Terms(density=0.01, rank=2))
    assert offers["none"] == Offer(1, 4_000_000, 0.0)
    assert offers["bf16"].sent_bytes == 2_000_000
    assert offers["topk"].sent_bytes == 80_000
    assert offers["powersgd"].sent_bytes == 4 * 2 * 2000
    assert all(offer.computing_seconds > 0 for name, offer in offers.items() if name != "none")


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=20), st.integers(1, 9))
def test_lanes_cover_all_and_cut_no_parameter(sizes, parts):
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    matrices = [Matrix(start, (1, size)) for start, size in zip(starts, sizes, strict=True)]
    lanes = cut_between(matrices, sum(sizes), parts)
    assert len(lanes) == parts
    assert [lanes[0].start, lanes[-1].stop] == [0, sum(sizes)]
    assert all(a.stop == b.start for a, b in pairwise(lanes))
    assert all(lane.start in {*starts, sum(sizes)} for lane in lanes)
