"""Spaces: conditions, grids, corners, what lies in them."""

import pytest

from hpc_train.errors import ConfigError
from hpc_train.tune.space import Space
from tests.tune.studies import SPACE, study


def space(**more):
    return Space.ordered(study(space=SPACE | more).space)


def first(key, one):
    return one.choices[0] if one.choices else one.low


def last(key, one):
    return one.choices[-1] if one.choices else one.high


def test_a_parameter_is_active_only_where_its_condition_holds():
    assert "optimizer.momentum" in space().ask(first)
    assert "optimizer.momentum" not in space().ask(last)


def test_conditions_are_asked_for_first():
    late = {"a.b": {"type": "int", "low": 1, "high": 2, "when": {"z.z": 3}}}
    order = space(**late, **{"z.z": {"type": "categorical", "choices": [3, 4]}})
    names = list(order.parameters)
    assert names.index("z.z") < names.index("a.b")


@pytest.mark.parametrize(
    ("when", "says"),
    [({"optimizer.nme": "sgd"}, "did you mean"), ({"optimizer.name": "lion"}, "must name a value")],
)
def test_conditions_must_make_sense(when, says):
    with pytest.raises(ConfigError, match=says):
        space(**{"a.b": {"type": "int", "low": 1, "high": 2, "when": when}})


def test_conditions_must_not_go_round():
    circle = {
        "a.a": {"type": "categorical", "choices": [1], "when": {"b.b": 1}},
        "b.b": {"type": "categorical", "choices": [1], "when": {"a.a": 1}},
    }
    with pytest.raises(ConfigError, match="circle"):
        space(**circle)


def test_a_grid_has_each_point_once_also_with_conditions():
    small = {
        "optimizer.name": SPACE["optimizer.name"],
        "optimizer.momentum": SPACE["optimizer.momentum"] | {"points": 3},
        "optimizer.lr": SPACE["optimizer.lr"] | {"points": 4},
    }
    grid = Space.ordered(study(space=small).space).grid()
    assert len(grid) == 4 * (3 + 1)
    assert len({str(point) for point in grid}) == len(grid)
    rates = sorted({point["optimizer.lr"] for point in grid})
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1])


def test_a_float_in_a_grid_needs_points():
    with pytest.raises(ConfigError, match="points or step"):
        space().grid()


def test_corners_reach_every_extreme_value():
    found = list(space().corners())
    for key, values in {
        "optimizer.momentum": {0.0, 0.9},
        "run.epochs": {1, 8},
        "optimizer.name": {"sgd", "adamw"},
    }.items():
        assert values <= {point[key] for point in found if key in point}
    assert all(space().contains(point) for point in found)


def test_what_lies_in_a_space():
    point = space().ask(first)
    assert space().contains(point)
    assert not space().contains(point | {"optimizer.lr": 1.0})
    assert not space().contains(point | {"optimizer.name": "adamw"})  # momentum is too much
    assert not space().contains({k: v for k, v in point.items() if k != "run.epochs"})
