"""Batches on their way to a GPU: buffers are not used again, nor tensors used, before the copy."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from hpc_train.data import Loader, make_order
from hpc_train.plan import Course, Plan
from hpc_train.train.feed import Feed
from hpc_train.train.upload import Uploads, is_tensor_type, pinned
from tests.data.files import make_dataset, rows_of

CPU = torch.device("cpu")


class Event:
    """Passes when its stream is told to go on."""

    def __init__(self):
        self.waited = self.synchronized = False

    def record(self, stream):
        self.stream = stream

    def synchronize(self):
        self.synchronized = True


class Stream:
    def wait_event(self, event):
        event.waited = True


class Streams:
    """Stands for torch.cuda."""

    def __init__(self):
        self.current, self.events, self.entered = Stream(), [], []

    def Stream(self, device):  # noqa: N802
        return Stream()

    def Event(self):  # noqa: N802
        self.events.append(Event())
        return self.events[-1]

    @contextmanager
    def stream(self, stream):
        self.entered.append(stream)
        yield

    def current_stream(self, device):
        return self.current


@pytest.fixture
def dataset(tmp_path):
    return make_dataset(tmp_path, [20, 13])


@pytest.fixture
def recorded(monkeypatch):
    """The streams that tensors are known to be used on."""
    found = []
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda _, stream: found.append(stream))
    return found


def works(batch_size=8):
    batches = Course(33, batch_size).batches(0, 10)
    return [Plan((batch_size,)).work(batch, 0) for batch in batches]


@pytest.mark.parametrize("mixes", [False, True])
def test_batches_are_copied_on_a_stream_of_their_own_and_waited_for(dataset, recorded, mixes):
    streams = Streams()
    uploads = Uploads(CPU, streams)
    feed = Feed(["x"], ["y"], CPU, torch.float64, "auto", None)
    order = make_order("window", dataset.blocks(), 1, 4)
    reverse = (lambda batch: np.arange(batch.size)[::-1]) if mixes else None
    with Loader(dataset, order, ["x", "y"], deliver=uploads, partners=reverse) as loader:
        loader.follow(iter(works()))
        before = None
        for work in works():
            samples = loader.get(work)
            if before is not None:
                assert event_of(before).synchronized
            assert not event_of(samples).waited
            batch = feed.batch(samples, 0, len(samples.ids))
            assert event_of(samples).waited
            assert not event_of(samples).synchronized
            expected = torch.from_numpy(rows_of(0, 33)["x"][samples.ids]).double()
            assert torch.equal(batch.inputs["x"], expected)
            assert batch.target.tolist() == (samples.ids % 7).tolist()
            if mixes:
                assert torch.equal(batch.partner.inputs["x"], expected.flip(0))
            before = samples
    assert set(streams.entered) == {streams.events[0].stream} != {streams.current}
    assert set(recorded) == {streams.current}


def event_of(samples):
    """The event after which the arrays of samples are free."""
    return samples.delivered.finish.__self__


def test_types_that_torch_barely_knows_are_delivered_as_arrays():
    uploads = Uploads(CPU, Streams())
    arrays = {"a": np.ones((3, 2), np.uint16), "b": np.ones((3, 2), np.uint8)}
    assert list(uploads(arrays).parts) == ["b"]
    assert pinned((3, 2), np.dtype("u4")).shape == (3, 2)
    assert [is_tensor_type(np.dtype(t)) for t in ("u1", "u2", "u8", "i2", "f4", "?")] == [
        True, False, False, True, True, True,
    ]  # fmt: skip


def test_buffers_come_from_who_allocates(dataset):
    made = []

    def allocate(shape, dtype):
        made.append((shape, dtype.name))
        return np.empty(shape, dtype)

    order = make_order("window", dataset.blocks(), 1, 4)
    with Loader(dataset, order, ["x", "y"], prefetch_batches=2, allocate=allocate) as loader:
        loader.follow(iter(works(11)))
        for work in works(11):
            loader.get(work)
    assert set(made) == {((11, 3), "float32"), ((11,), "int64")}
    assert len(made) < 2 * len(works(11))  # they are used again


@pytest.mark.skipif(not torch.cuda.is_available(), reason="copies to a GPU, and there is none")
def test_what_arrives_on_a_gpu_is_what_was_read(dataset):
    device = torch.device("cuda", torch.cuda.current_device())
    feed = Feed(["x"], ["y"], device, torch.float32, "auto", None)
    order = make_order("window", dataset.blocks(), 1, 4)
    with Loader(dataset, order, ["x", "y"], allocate=pinned, deliver=Uploads(device)) as loader:
        loader.follow(iter(works()))
        for work in works():
            samples = loader.get(work)
            assert torch.from_numpy(samples.arrays["x"]).is_pinned()
            found = feed.batch(samples, 0, len(samples.ids)).inputs["x"]
            assert found.device == device
            assert np.array_equal(found.cpu(), rows_of(0, 33)["x"][samples.ids])
