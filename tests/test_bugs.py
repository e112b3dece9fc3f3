"""One test per bug that was found, opening with its story."""

import pytest

from hpc_train.record import Stopwatch, listening, phase


def test_a_hook_that_raises_leaves_the_hooks_entered_before_it():
    """Fault injection raised at the start of a phase, and the stopwatch never left that phase.

    Its stack of inner seconds stayed one too high, so every later outer phase was timed wrongly.
    """
    left = []
    watch = Stopwatch()

    def injection(name, detail):
        raise RuntimeError("injected")

    def first(name, detail):
        return lambda: left.append(name)

    with listening(first), listening(watch), listening(injection):
        with pytest.raises(RuntimeError, match="injected"), phase("compute"):
            pytest.fail("the phase must not begin")
    assert left == ["compute"]
    assert watch.take().keys() == {"compute"}
