"""Every compressor: nothing is lost, all parties find the same, what is not finite is found."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.comm.compression import COMPRESSORS, find_compressor
from hpc_train.comm.compression.halves import power_of_two
from hpc_train.comm.compression.powersgd import between, pays
from hpc_train.comm.compression.topk import largest
from hpc_train.errors import UsageError
from tests.comm.compression.parties import Matrix, sums

NAMES = sorted(COMPRESSORS)
MATRICES = [Matrix(0, (6, 8)), Matrix(48, (1, 5)), Matrix(64, (4, 9))]


def values(party, turn, size=101, dtype=torch.float64):
    generator = torch.Generator().manual_seed(100 * party + turn)
    return torch.randn(size, generator=generator, dtype=dtype)


@pytest.mark.parametrize("parties", [1, 2, 3, 5])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_out_is_not_lost_and_all_find_the_same(name, parties):
    found = sums(parties, name, values, MATRICES, density=0.1)
    given_so_far = torch.zeros(101, dtype=torch.float64)
    sent_so_far = torch.zeros_like(given_so_far)
    for turn in range(3):
        given_so_far += sum(values(party, turn) for party in range(parties))
        sent_so_far += found[0][0][turn]
        owed = sum(residuals[turn] for _, residuals in found)
        assert torch.allclose(sent_so_far + owed, given_so_far, atol=1e-12)
        assert all(torch.equal(results[turn], found[0][0][turn]) for results, _ in found)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
def test_a_sum_that_does_not_count_leaves_no_trace(name):
    once = sums(2, name, lambda party, turn: values(party, 0), MATRICES, commit=False, density=0.1)
    for results, residuals in once:
        assert not residuals.any()
        assert torch.equal(results[0], results[2])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("place", [0, 50, 70, 100])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_on_one_party_is_found_by_all(name, place, bad):
    def spoilt(party, turn):
        found = values(party, turn, dtype=torch.float32)
        if party == 1:
            found[place] = bad
        return found

    for results, residuals in sums(2, name, spoilt, MATRICES, commit=False):
        assert not torch.isfinite(torch.linalg.vector_norm(results[0]))
        assert not residuals.any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_fewer_elements_than_parties_and_zeros(name, size):
    found = sums(3, name, lambda party, turn: values(0, 0, size) * (party == turn % 2))
    for results, _ in found:
        assert results.isfinite().all()
        assert torch.equal(results[0], found[0][0][0])
    zero = sums(2, name, lambda party, turn: torch.zeros(101), MATRICES)
    assert all(not results.any() and not residuals.any() for results, residuals in zero)


@pytest.mark.parametrize(("name", "tolerance"), [("fp16", 1e-3), ("bf16", 8e-3)])
@pytest.mark.parametrize("scale", [1e-30, 1e-9, 1.0, 1e9, 1e30])
def test_halves_keep_their_digits_at_any_scale(name, tolerance, scale):
    found = sums(3, name, lambda party, turn: values(party, 0) * scale)
    exact = sum(values(party, 0) for party in range(3)) * scale
    far = torch.linalg.vector_norm(found[0][0][0] - exact) / torch.linalg.vector_norm(exact)
    assert far < tolerance


def test_power_of_two():
    assert power_of_two(0.0, 3) == 1.0
    assert power_of_two(float("inf"), 2) != power_of_two(float("inf"), 2)
    assert power_of_two(1e-300, 1) == 2.0**100
    for bound in (1e-5, 0.3, 7.0, 1e10):
        for parties in (1, 2, 1000):
            scaled = power_of_two(bound, parties) * bound * parties
            assert 30_000 <= scaled <= 60_000


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30_000), st.floats(0.0, 1.0), st.integers(0, 5))
def test_the_largest_elements(size, part, seed):
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(size, generator=generator)
    if seed == 5:
        found.zero_()
    count = int(part * size)
    places = largest(found, count)
    assert len(set(places.tolist())) == count
    assert torch.equal(found[places].abs().sort().values, found.abs().sort().values[size - count :])


def test_elements_that_are_not_a_number_come_first():
    found = torch.randn(20_000)
    found[12_345] = float("nan")
    assert 12_345 in largest(found, 20)


def test_topk_sends_the_largest_and_then_what_was_left():
    found = sums(1, "topk", lambda party, turn: torch.tensor([3.0, -9.0, 2.0]), density=0.3)
    assert found[0][0].tolist() == [[0, -9, 0], [0, -9, 0], [9, 0, 0]]
    assert found[0][1][-1].tolist() == [0, -9, 6]


def low_rank(party, turn):
    generator = torch.Generator().manual_seed(turn)
    rows = torch.randn(6, 1, generator=generator, dtype=torch.float64)
    columns = torch.randn(1, 8, generator=generator, dtype=torch.float64)
    return ((party + 1) * rows @ columns).reshape(-1)


def test_powersgd_is_exact_for_sums_of_low_rank():
    found = sums(3, "powersgd", low_rank, [Matrix(0, (6, 8))], rank=2)
    for turn in range(3):
        exact = sum(low_rank(party, turn) for party in range(3))
        assert torch.allclose(found[0][0][turn], exact, atol=1e-10)


def test_powersgd_does_not_depend_on_who_has_what():
    whole = sums(1, "powersgd", lambda _, turn: 3 * values(0, turn), MATRICES)
    parts = sums(
        3, "powersgd", lambda party, turn: (party != 1) * (1.5 * values(0, turn)), MATRICES
    )
    assert torch.allclose(whole[0][0], parts[0][0], atol=1e-10)


def test_powersgd_recovers_from_gradients_that_are_zero():
    def late(party, turn):
        return low_rank(party, turn) if turn == 2 else torch.zeros(48, dtype=torch.float64)

    found = sums(2, "powersgd", late, [Matrix(0, (6, 8))])
    assert torch.allclose(found[0][0][2], late(0, 2) + late(1, 2), atol=1e-10)


def test_which_matrices_are_worth_it():
    assert pays(Matrix(0, (10, 10)), 2)
    assert not pays(Matrix(0, (1, 1000)), 2)
    assert not pays(Matrix(0, (4, 4)), 2)
    assert between([Matrix(2, (2, 2)), Matrix(6, (1, 1))], 9) == [slice(0, 2), slice(7, 9)]
    assert between([], 3) == [slice(0, 3)]


def test_unknown_names_are_told_with_the_known_ones():
    with pytest.raises(UsageError, match="known: bf16, fp16, none, powersgd, topk"):
        find_compressor("gzip")
