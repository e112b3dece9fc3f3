"""What earlier studies knew."""

import pytest

from hpc_train.errors import ConfigError
from hpc_train.tune import warm
from hpc_train.tune.space import Space
from tests.tune.studies import Job, study

SPACE = {
    "optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "model.hidden": {"type": "categorical", "choices": [[8], [8, 8]]},
}


def with_source(path, **more):
    section = study(space=SPACE, history={"sources": [str(path)], **more})
    return section, Space.ordered(section.space)


def test_a_csv_file_has_a_column_for_each_parameter_and_metric(tmp_path):
    path = tmp_path / "old.csv"
    path.write_text(
        'optimizer.lr,model.hidden,loss\n0.01,"[8, 8]",0.5\n9.0,[8],0.1\n0.02,[8],0.4\n'
    )
    known = warm.load(*with_source(path))
    assert known == [
        {"params": {"optimizer.lr": 0.01, "model.hidden": [8, 8]}, "values": [0.5]},
        {"params": {"optimizer.lr": 0.02, "model.hidden": [8]}, "values": [0.4]},
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("optimizer.lr,model.hidden\n0.1,[8]\n", "no column loss"),
        ("optimizer.lr,model.hidden,loss\n0.1,[8],x\n", "must be a number"),
        ("optimizer.lr,model.hidden,loss\n7,[8],1\n", "none of its 1 trials"),
    ],
)
def test_what_cannot_be_used_is_an_error(tmp_path, text, says):
    path = tmp_path / "old.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        warm.load(*with_source(path))


def test_the_good_region_holds_the_good_points_and_is_smaller(tmp_path):
    section, space = with_source(tmp_path)
    known = [
        {"params": {"optimizer.lr": lr, "model.hidden": [8]}, "values": [abs(lr - 0.01)]}
        for lr in (0.0002, 0.008, 0.011, 0.09)
    ]
    best = warm.good(known, section.directions, 0.5)
    assert [one["params"]["optimizer.lr"] for one in best] == [0.011, 0.008]
    narrow = warm.narrowed(space, best)
    assert all(narrow.contains(one["params"]) for one in best)
    assert not narrow.contains(known[3]["params"])
    assert narrow.parameters["model.hidden"].choices == [[8]]


def test_of_several_minima_the_region_is_that_around_the_best(tmp_path):
    section, space = with_source(tmp_path)
    rates = [0.0002, 0.00025, 0.02, 0.03, 0.04]  # two groups, a gap of two decades between
    known = [
        {"params": {"optimizer.lr": lr, "model.hidden": hidden}, "values": [abs(lr - 0.03)]}
        for lr, hidden in zip(rates, [[8], [8], [8], [8, 8], [8, 8]], strict=True)
    ]
    narrow = warm.narrowed(space, warm.good(known, section.directions, 1.0))
    inside = [one["params"]["optimizer.lr"] for one in known if narrow.contains(one["params"])]
    assert inside == [0.02, 0.03, 0.04]
    low, high = narrow.parameters["optimizer.lr"].low, narrow.parameters["optimizer.lr"].high
    assert 0.015 < low < 0.02 < 0.04 < high < 0.05  # a margin of a tenth on each side
    assert narrow.parameters["model.hidden"].choices == [[8], [8, 8]]


def test_the_region_of_whole_numbers_is_whole_and_within_the_space():
    whole = {"run.epochs": {"type": "int", "low": 1, "high": 20}}
    space = Space.ordered(study(space=whole).space)
    known = [{"params": {"run.epochs": count}, "values": [count]} for count in (1, 3, 5)]
    one = warm.narrowed(space, known).parameters["run.epochs"]
    assert (one.low, one.high) == (1.0, 6.0)


def test_a_journal_gives_its_complete_trials(tmp_path):
    section, space = with_source(tmp_path)
    records = Job(section, fails=(1,)).run()
    about = {"kind": "study", "digest": "", "metrics": ["accuracy", "loss"], "time": 0}
    from hpc_train.tune.journal import NAME, Journal

    with Journal(tmp_path / NAME) as journal:
        for record in [about, *records]:
            if record["kind"] == "finished" and record["values"]:
                record = {**record, "values": [0.0, *record["values"]]}
            journal.append(record)
    known = warm.load(section, space)
    assert len(known) == 11
    assert all(one["values"][0] > 0 for one in known)
