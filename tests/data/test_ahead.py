"""Readers that work ahead: as many as are needed, and none is woken for nothing."""

import threading
import time
from types import SimpleNamespace

import pytest

from hpc_train.data.ahead import Ahead
from hpc_train.plan import Batch, Work


class Cache:
    """All blocks are in memory."""

    def has_room(self, size):
        return True

    def is_wanted(self, key):
        return False

    def want(self, blocks):
        pass

    unwant = want


def works(count):
    return [Work(Batch(n, 0, n, n + 1), 0, 1) for n in range(count)]


def readers_of_each_batch(gather_seconds, step_seconds, count=40):
    """How many readers looked for something to do while each batch was trained."""
    reader = SimpleNamespace(lock=threading.Lock(), cache=Cache(), block_bytes=lambda key: 1)
    looked = [set()]

    def gather(request):
        time.sleep(gather_seconds)
        return request

    everything = works(count)
    ahead = Ahead(reader, iter(everything), lambda work: (work, []), gather, depth=4, num_threads=2)
    following = ahead._agenda.next

    def next_task():
        looked[-1].add(threading.get_ident())
        return following()

    ahead._agenda.next = next_task
    for work in everything:
        assert ahead.take(work) is work  # what is gathered is the request, here the work itself
        looked.append(set())
        time.sleep(step_seconds)
    ahead.stop()
    return [len(threads) for threads in looked]


def test_one_reader_does_all_where_it_has_time():
    found = readers_of_each_batch(0.0, 0.02)
    # all but the beginning, the end, and what a busy machine may delay
    assert sum(count == 1 for count in found[5:35]) >= 20, found


def test_both_read_where_one_could_not_keep_up():
    found = readers_of_each_batch(0.01, 0.01)
    assert sum(count == 2 for count in found[5:35]) >= 20, found


@pytest.mark.parametrize("step_seconds", [0.0, 0.02])
def test_nobody_waits_for_ever(step_seconds):
    found = readers_of_each_batch(0.001, step_seconds, count=20)
    assert len(found) == 1 + 20  # all batches came, each as the forecast has it
