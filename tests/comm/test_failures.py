"""What counts as news of a death, with an MPI that only says what a test lets it say."""

import pytest

from hpc_train.comm import failures


class Mpi:
    """The part of mpi4py.MPI that is asked."""

    ERR_PROC_FAILED, ERR_PROC_FAILED_PENDING, ERR_REVOKED, ERR_OTHER = 1, 2, 3, 4

    class Exception(RuntimeError):  # noqa: A001, N818
        def Get_error_class(self):  # noqa: N802
            return self.args[0]


class Communicator:
    """Hears of `dead` ranks once it was asked `late` times; or says `error` when it looks."""

    def __init__(self, dead=0, late=0, error=None):
        self.dead, self.late, self.error = dead, late, error

    def Iprobe(self):  # noqa: N802
        if self.error:
            raise Mpi.Exception(self.error)
        self.late -= 1

    def Ack_failed(self):  # noqa: N802
        pass

    def Get_failed(self):  # noqa: N802
        return self

    def Free(self):  # noqa: N802
        pass

    def Get_size(self):  # noqa: N802
        return self.dead if self.late < 0 else 0


@pytest.mark.parametrize(
    ("communicators", "expected"),
    [
        ([], False),
        ([Communicator()], False),
        ([Communicator(), Communicator(dead=1)], True),
        ([Communicator(dead=2, late=3)], True),
        ([Communicator(error=Mpi.ERR_REVOKED)], True),
        ([Communicator(error=Mpi.ERR_OTHER)], False),
    ],
)
def test_an_unclear_error_counts_if_news_of_a_death_comes(communicators, expected):
    assert failures.is_known(Mpi, communicators, 0.05) is expected


def test_only_errors_of_mpi_tell_of_deaths():
    assert failures.is_failure(Mpi, Mpi.Exception(Mpi.ERR_PROC_FAILED))
    assert failures.is_failure(Mpi, Mpi.Exception(Mpi.ERR_REVOKED))
    assert not failures.is_failure(Mpi, Mpi.Exception(Mpi.ERR_OTHER))
    assert not failures.is_failure(Mpi, ValueError())
