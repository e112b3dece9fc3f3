"""Who watches whom, as ranks come and go."""

from hpc_train.recovery.flight import Tape
from hpc_train.recovery.vigil import Vigil
from hpc_train.world import World


class Ranks:
    """Rank 0 of two on one node; what the other one tells is `other`."""

    number, members = 0, (0, 1)
    world = World.from_hosts(["node", "node"], 0)

    def __init__(self, other):
        self.other = other

    def gather(self, value):
        return [value, self.other]


def test_with_one_that_keeps_no_record_a_rank_watches_itself_alone(tmp_path):
    known = [str(Tape.create(tmp_path / "other.flight", 1).path), "", 5]
    comm = Ranks(known)
    with Vigil(comm, tmp_path, on_hang="wait", hang_seconds=60.0) as vigil:
        vigil.renew()
        watchdog = vigil._watchdog
        assert set(watchdog._tapes) == {0, 1}
        comm.other = ["", "", 0]  # one that took the place of rank 1 and cannot write there
        vigil.renew()
        assert set(watchdog._tapes) == {0}
        comm.other = known
        vigil.renew()
        assert set(watchdog._tapes) == {0, 1}
        assert vigil._watchdog is watchdog
