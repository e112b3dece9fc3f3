"""Assertions for tests under MPI: all ranks gather what each found, then all assert."""

from mpi4py import MPI


def agree(condition, what=""):
    """Assert `condition` on every rank; all ranks fail together, naming those where it is false."""
    found = MPI.COMM_WORLD.allgather((bool(condition), str(what)))
    wrong = {rank: text for rank, (fine, text) in enumerate(found) if not fine}
    assert not wrong, f"false on ranks {wrong}"


def agree_raises(kind, function):
    """Assert that `function()` raises `kind` on every rank; gives this rank's error."""
    caught = None
    try:
        function()
    except kind as error:
        caught = error
    agree(caught is not None, f"{kind.__name__} was not raised")
    return caught
