"""Devices and threads on invented worlds; the flag that a signal raises."""

import os
import signal
import threading

import pytest
import torch

from hpc_train.errors import SetupError
from hpc_train.stop import StopFlag
from hpc_train.train.device import choose_device, gpu_number, set_threads, threads_of
from hpc_train.world import World
from tests.groups import Solo


def numbers(keys, gpus):
    """The GPU number of each rank."""
    return [gpu_number(World.from_hosts(keys, rank), gpus) for rank in range(len(keys))]


@pytest.mark.parametrize(
    ("keys", "gpus", "expected"),
    [
        ("aaaa", [["g0", "g1", "g2", "g3"]] * 4, [0, 1, 2, 3]),
        ("aabb", [["g0", "g1"]] * 2 + [["g2", "g3"]] * 2, [0, 1, 0, 1]),
        ("aaaa", [["g0"], ["g1"], ["g2"], ["g3"]], [0, 0, 0, 0]),
        ("aaaa", [["g0", "g1"], ["g0", "g1"], ["g2", "g3"], ["g2", "g3"]], [0, 1, 0, 1]),
        ("aaa", [["g0", "g1"]] * 3, [0, 1, 0]),
        ("aba", [["g0", "g1"], [], ["g0", "g1"]], [0, None, 1]),
        ("aa", [["g0", "g1"], ["g1", "g0"]], [0, 1]),
    ],
)
def test_a_ranks_gpu_is_its_position_among_those_that_see_the_same(keys, gpus, expected):
    assert numbers(keys, gpus) == expected


@pytest.mark.parametrize(
    ("keys", "cores", "expected"),
    [
        ("aa", [range(8)] * 2, [4, 4]),
        ("aab", [range(8)] * 3, [4, 4, 8]),
        ("aaa", [range(2)] * 3, [1, 1, 1]),
        ("aa", [[0], [1]], [1, 1]),
        ("aa", [[0, 1, 2, 3], [2, 3]], [3, 1]),
        ("aaa", [range(3)] * 3, [1, 1, 1]),
        ("a" * 64, [range(128)] * 64, [2] * 64),
    ],
)
def test_threads_are_the_ranks_part_of_the_cores(keys, cores, expected):
    worlds = [World.from_hosts(keys, rank) for rank in range(len(keys))]
    assert [threads_of(w.rank, w.local_ranks, cores) for w in worlds] == expected


@pytest.fixture
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("_threads_as_before")
def test_threads_follow_the_configuration_then_the_environment(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3,2")
    assert set_threads(2, Solo()) == 2
    assert set_threads("auto", Solo()) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    cores = len(os.sched_getaffinity(0))
    assert set_threads("auto", Solo()) == cores
    assert set_threads("auto", Solo(), reserve=1) == max(1, cores - 1)
    assert set_threads("auto", Solo(), reserve=1000) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert set_threads("auto", Solo(), reserve=1) == 3


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto", Solo()).type == "cpu"
    with pytest.raises(SetupError, match="no GPU can be seen"):
        choose_device("cuda", Solo())


def test_sigusr1_raises_the_flag_and_nothing_else():
    before = signal.getsignal(signal.SIGUSR1)
    flag = StopFlag()
    with flag.on_signal():
        assert not flag.is_set
        os.kill(os.getpid(), signal.SIGUSR1)
        assert flag.is_set
    assert signal.getsignal(signal.SIGUSR1) is before


def test_in_another_thread_signals_are_left_alone():
    before, seen = signal.getsignal(signal.SIGUSR1), []

    def run():
        with StopFlag().on_signal():
            seen.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [before]
