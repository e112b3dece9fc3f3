"""Whether MPI yields while it waits: told to the library, and only when that changes."""

from types import SimpleNamespace

import pytest

from hpc_train.comm.gate import Gate, Seat
from hpc_train.comm.yielding import Yielding, yielding_of


class Setter:
    """Open MPI's function: sets, and gives what was set before."""

    def __init__(self, yields):
        self.yields, self.calls = yields, 0

    def __call__(self, wanted):
        before, self.yields = self.yields, wanted
        self.calls += 1
        return before


def test_mpi_yields_as_long_as_it_is_wanted():
    setter = Setter(yields=False)
    yielding = Yielding(setter)
    assert not setter.yields
    before = setter.calls
    seen = []
    for wanted in (False, True, True, False, False):
        yielding.set_yielding(wanted)
        seen.append(setter.yields)
    assert seen == [False, True, True, False, False]
    assert setter.calls - before == 2


def test_a_library_that_was_started_yielding_stays_so():
    setter = Setter(yields=True)
    yielding = Yielding(setter)
    for wanted in (False, True, False):
        yielding.set_yielding(wanted)
        assert setter.yields


def test_a_library_that_cannot_be_told_is_left_alone(tmp_path):
    for yielding in (Yielding(None), yielding_of(None), yielding_of(str(tmp_path / "none.so"))):
        assert not yielding.is_settable
        yielding.set_yielding(True)
        assert not yielding.is_settable


@pytest.mark.parametrize("cores", [1, 2])
def test_ranks_yield_where_one_is_idle_or_cores_are_short(cores):
    here = SimpleNamespace(Get_rank=lambda: 0, Ibarrier=lambda: here, Test=lambda: True)
    home = SimpleNamespace(come=lambda: None, leave=lambda: None)
    setter = Setter(yields=False)
    gate = Gate(here, [Seat("a", range(cores))] * 2, Yielding(setter), home)
    seen = []
    for counts in ([8, 8], [16, 0], [8, 8], []):
        gate.pass_together(counts)
        seen.append(setter.yields)
    assert seen == ([True] * 4 if cores == 1 else [False, True, False, False])
