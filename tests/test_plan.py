"""Course, plan and segments: every sample once, cuts that sum up, periods that come due."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.plan import Batch, Course, Cursor, Every, Plan, segments

sizes = st.integers(1, 200)


@given(num_samples=sizes, batch_size=sizes, epochs=st.integers(1, 3))
def test_every_sample_of_every_epoch_is_in_exactly_one_batch(num_samples, batch_size, epochs):
    course = Course(num_samples, batch_size)
    seen = [
        (batch.epoch, sample)
        for batch in course.batches(0, course.end_of(epochs))
        for sample in range(batch.first, batch.last)
    ]
    assert seen == [(epoch, sample) for epoch in range(epochs) for sample in range(num_samples)]


@given(num_samples=sizes, batch_size=sizes, ahead=st.integers(0, 50))
def test_a_resumed_course_goes_on_where_the_first_one_was(num_samples, batch_size, ahead):
    whole = Course(num_samples, batch_size)
    resumed = Course(num_samples, batch_size, whole.cursor(ahead), ahead)
    assert [resumed.batch(n) for n in range(ahead, ahead + 20)] == [
        whole.batch(n) for n in range(ahead, ahead + 20)
    ]
    epochs = whole.cursor(ahead).epoch + 1
    assert resumed.end_of(epochs) == whole.end_of(epochs)


def test_another_batch_size_after_a_resume_still_covers_the_epoch():
    first = Course(100, 30)
    resumed = Course(100, 7, first.cursor(2), 2)
    batches = list(resumed.batches(2, resumed.end_of(1)))
    assert batches[0] == Batch(2, 0, 60, 67)
    assert batches[-1].last == 100
    assert resumed.cursor(resumed.end_of(1)) == Cursor(1, 0)


@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=9).filter(any),
    size=st.integers(1, 300),
)
def test_shares_sum_up_and_follow_the_plan(counts, size):
    plan = Plan(tuple(counts))
    shares = plan.shares(size)
    assert sum(shares) == size
    assert min(shares) >= 0
    for share, count in zip(shares, counts, strict=True):
        assert abs(share - count * size / sum(counts)) < 1
        assert count > 0 or share == 0
    works = [plan.work(Batch(0, 0, 0, size), rank) for rank in range(len(counts))]
    assert [w.start for w in works] + [size] == [0] + [w.stop for w in works]


def test_a_plan_needs_somebody_who_works():
    with pytest.raises(ValueError, match="positive sum"):
        Plan((0, 0))


@pytest.mark.parametrize(
    ("text", "count", "unit"),
    [
        ("1 epoch", 1, "epochs"),
        ("2 epochs", 2, "epochs"),
        ("100 steps", 100, "steps"),
        ("1 step", 1, "steps"),
        ("never", 0, "steps"),
    ],
)
def test_periods_are_parsed(text, count, unit):
    assert Every.parse(text) == Every(count, unit)


@pytest.mark.parametrize("text", ["", "0 steps", "epoch", "1 minute", "-1 steps", "1.5 epochs"])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(ValueError, match="a period must read"):
        Every.parse(text)


@given(
    num_samples=st.integers(1, 60),
    batch_size=st.integers(1, 60),
    start=st.integers(0, 20),
    length=st.integers(1, 40),
    evaluate=st.sampled_from(["never", "1 epoch", "3 epochs", "1 steps", "7 steps"]),
    save=st.sampled_from(["never", "1 epoch", "2 epochs", "5 steps"]),
)
def test_segments_cover_the_run_and_stop_where_something_is_due(
    num_samples, batch_size, start, length, evaluate, save
):
    course = Course(num_samples, batch_size)
    end = start + length
    periods = {"evaluate": Every.parse(evaluate), "save": Every.parse(save)}
    cut = list(segments(course, start, end, **periods))
    assert [s.start for s in cut] + [end] == [start] + [s.stop for s in cut]
    assert [s.last for s in cut] == [False] * (len(cut) - 1) + [True]
    for what, every in periods.items():
        got = {s.stop for s in cut if getattr(s, what)}
        assert got == {n for n in range(start + 1, end + 1) if n == end or _due(every, course, n)}


def _due(every, course, number):
    if every.count == 0:
        return False
    if every.unit == "steps":
        return number % every.count == 0
    here = course.cursor(number)
    return here.samples == 0 and here.epoch % every.count == 0
