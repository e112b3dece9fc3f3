"""The choice among collectives is a function of what was measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.comm.auto import choose, size_class


def test_the_fastest_is_chosen_and_the_reason_names_both_figures():
    choice = choose({"native": [4e-3, 4e-3], "ring": [5e-3, 5e-3], "shared": [2e-3, 2e-3]})
    assert choice.name == "shared"
    assert choice.reason == "2.0 ms, 2.00 times as fast as native"


def test_what_is_hardly_faster_does_not_replace_the_first():
    choice = choose({"native": [100e-6], "shared": [98e-6]})
    assert choice.name == "native"
    assert choice.reason == "100.0 us; shared is 1.02 times as fast"


def test_rounds_are_compared_in_pairs():
    # the machine slowed down in the second half, for both; medians of each alone would mislead
    native = [1.0, 1.0, 9.0, 9.0, 9.0]
    shared = [1.2, 1.2, 1.2, 10.8, 10.8]
    assert choose({"native": native, "shared": shared}).name == "native"


def test_a_single_candidate_needs_no_comparison():
    assert choose({"ring": [1.0]}).name == "ring"


@given(st.lists(st.lists(st.floats(1e-7, 1.0), min_size=3, max_size=3), min_size=1, max_size=4))
def test_the_first_is_never_replaced_by_a_slower_one(rows):
    seconds = {str(number): row for number, row in enumerate(rows)}
    chosen = choose(seconds).name
    if chosen != "0":
        wins = sum(mine < base for base, mine in zip(seconds["0"], seconds[chosen], strict=True))
        assert wins >= 2


@pytest.mark.parametrize(
    ("size", "expected"), [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8), (2**20, 2**20)]
)
def test_size_classes_are_powers_of_two(size, expected):
    assert size_class(size) == expected
