"""What a trial tells of itself, and tells again where the journal lost it."""

from types import SimpleNamespace

from hpc_train.stop import StopFlag
from hpc_train.tune.reporter import Reporter


def reporter(asked, answer="go", known=()):
    group = SimpleNamespace(world=SimpleNamespace(is_coordinator=True), broadcast=lambda v: v)

    def ask(message):
        asked.append(message)
        return answer

    return Reporter(group, 7, ["loss"], 10, ask, StopFlag(), known)


def test_evaluations_are_counted_over_all_times_that_a_trial_was_trained():
    asked = []
    first = reporter(asked)
    for batch, loss in ((2, 3.0), (4, float("nan"))):
        assert first.evaluated(batch, {"loss": loss, "other": 0.0}) is None
    again = reporter(asked, "prune", known=[1, 2])
    again.restore({}, first.notes())
    assert again.evaluated(6, {"loss": 1.0}) == "pruned"
    assert [(m["step"], m["values"], m["done"]) for m in asked] == [
        (1, [3.0], 0.2),
        (2, [None], 0.4),
        (3, [1.0], 0.6),
    ]
    assert not any(message["earlier"] for message in asked)


def test_what_a_checkpoint_knows_and_the_journal_lost_is_told_once_more():
    asked = []
    again = reporter(asked, known=[1])
    again.restore({}, {"reached": [[3.0], [2.0], [1.5]]})
    again.evaluated(8, {"loss": 1.0})
    again.evaluated(10, {"loss": 0.5})
    assert asked[0]["step"] == 4
    assert asked[0]["earlier"] == [(2, [2.0]), (3, [1.5])]
    assert asked[1]["earlier"] == []
