"""The search: Optuna's own proposals, also after a resume; pruners as Optuna's."""

import optuna
import pytest

from hpc_train.tune.samplers import SAMPLERS
from hpc_train.tune.search import Search, distribution, label
from hpc_train.tune.space import Space
from tests.tune.studies import loss, study


def play(search, count, points=()):
    """Ask, report and tell `count` trials; the points."""
    found = list(points)
    for number in range(len(found), count):
        found.append(search.ask())
        finish(search, number, found[-1])
    return found


def finish(search, number, point):
    search.report(number, 1, [loss(point)])
    search.tell(number, "complete", [loss(point)] * len(search._section.objective))


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"grid", "gp"}))
def test_a_resumed_search_goes_on_as_if_it_had_not_been_interrupted(sampler):
    more = {"objective": [{"metric": "min loss"}] * 2} if sampler == "nsga2" else {}
    section = study(sampler, **more)
    space = Space.ordered(section.space)
    whole = play(Search(section, space), 26)
    again = Search(section, space)
    for number, point in enumerate(whole[:23]):
        again.adopt(point)
        finish(again, number, point)
    assert play(again, 26, whole[:23]) == whole
    assert all(space.contains(point) for point in whole)


def test_the_gaussian_process_proposes_points_of_the_space():
    section = study("gp")
    section.sampler.startup_trials = 3
    space = Space.ordered(section.space)
    assert all(space.contains(point) for point in play(Search(section, space), 5))


def test_a_grid_is_visited_once():
    small = {
        "optimizer.lr": {"type": "float", "low": 0.1, "high": 0.3, "points": 3},
        "optimizer.name": {"type": "categorical", "choices": ["sgd", "adamw"]},
    }
    section = study("grid", small)
    space = Space.ordered(section.space)
    asked = play(Search(section, space), 6)
    own = optuna.samplers.GridSampler(
        {"optimizer.lr": [0.1, 0.2, 0.3], "optimizer.name": ["sgd", "adamw"]}, seed=0
    )
    reference = optuna.create_study(sampler=own)
    reference.optimize(
        lambda t: (
            t.suggest_float("optimizer.lr", 0.1, 0.3)
            + (t.suggest_categorical("optimizer.name", ["sgd", "adamw"]) == "x")
        ),
        6,
    )
    expected = {tuple(trial.params.values()) for trial in reference.trials}
    assert {(round(p["optimizer.lr"], 9), p["optimizer.name"]) for p in asked} == {
        (round(rate, 9), name) for rate, name in expected
    }
    halfway = Search(section, space)
    for number, point in enumerate(asked[:2]):
        halfway.adopt(point)
        finish(halfway, number, point)
    assert play(halfway, 6, asked[:2]) == asked


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_samplers_propose_what_optunas_own_do_on_the_same_history(sampler):
    section = study(sampler)
    space = Space.ordered(section.space)
    search = Search(section, space)
    points = play(search, 20)
    own = optuna.create_study()
    for point in points:
        distributions = {key: distribution(space.parameters[key]) for key in point}
        params = {k: label(v) if space.parameters[k].choices else v for k, v in point.items()}
        own.add_trial(
            optuna.create_trial(params=params, distributions=distributions, value=loss(point))
        )
    own.sampler = search._sampler(20)
    trial = own.ask()
    momentum = trial.suggest_categorical("optimizer.name", ["sgd", "adamw"]) == "sgd"
    asked = {"optimizer.name": trial.params["optimizer.name"]}
    asked["optimizer.lr"] = trial.suggest_float("optimizer.lr", 1e-4, 1e-1, log=True)
    rest = search.ask()
    assert {key: rest[key] for key in asked} == asked
    assert ("optimizer.momentum" in rest) == momentum


@pytest.mark.parametrize("sampler", sorted(set(SAMPLERS) - {"grid"}))
def test_a_search_asks_as_a_study_of_optunas_own_does(sampler):
    more = {"objective": [{"metric": "min loss"}] * 2} if sampler == "nsga2" else {}
    section = study(sampler, **more)
    space = Space.ordered(section.space)
    search = Search(section, space)
    own = optuna.create_study(directions=section.directions)
    for number in range(12 if sampler == "gp" else 24):
        point = search.ask()
        own.sampler = search._sampler(number)
        trial = own.ask()
        for key, value in point.items():
            asked = trial._suggest(key, distribution(space.parameters[key]))
            assert asked == (label(value) if space.parameters[key].choices else value)
        finish(search, number, point)
        own.tell(trial, [loss(point)] * len(section.objective))


PRUNERS = {
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5),
    "asha": lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(1, 8, 4),
    "none": optuna.pruners.NopPruner,
}


@pytest.mark.parametrize("name", PRUNERS)
def test_pruners_decide_as_optunas_own_on_the_same_history(name):
    section = study(pruner={"name": name, "most": 8})
    search = Search(section, Space.ordered(section.space))
    own = optuna.create_study(pruner=PRUNERS[name](), study_name=search._study.study_name)
    decided, expected = [], []
    for number in range(24):
        point = search.ask()
        trial = own.ask()
        for step in range(1, 9):
            value = loss(point, step) + (number * 7919 % 13) / 13
            decided.append(search.report(number, step, [value]))
            trial.report(value, step)
            expected.append(trial.should_prune())
            assert decided[-1] == expected[-1]
            if decided[-1]:
                break
        search.tell(number, "pruned" if decided[-1] else "complete", [value])
        if decided[-1]:
            own.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            own.tell(trial, value)
    assert any(decided) == (name != "none")
