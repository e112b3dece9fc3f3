"""The gridworld: its dynamics are what its steps do, and its best policy is known."""

import numpy as np
import pytest

from hpc_train.errors import ConfigError
from hpc_train.reinforcement import make_environment
from hpc_train.reinforcement.gridworld import value_iteration


def test_an_episode_is_a_function_of_its_seed_and_actions():
    def played(seed):
        world = make_environment("gridworld", {"slip": 0.4})
        steps = [world.reset(seed).argmax()]
        steps += [world.step(action).observation.argmax() for action in (1, 1, 0, 2, 3, 2)]
        return steps

    assert played(7) == played(7)
    assert len({tuple(played(seed)) for seed in range(20)}) > 5


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_steps_are_as_probable_as_the_dynamics_say(slip):
    world = make_environment("gridworld", {"slip": slip})
    chances, rewards = world.dynamics()
    np.testing.assert_allclose(chances.sum(2), 1)
    found, gains, counts = np.zeros_like(chances), np.zeros_like(rewards), np.zeros_like(rewards)
    for seed in range(4000):
        state, action = world.reset(seed).argmax(), seed % 4
        step = world.step(action)
        found[state, action, step.observation.argmax()] += 1
        gains[state, action] += step.reward
        counts[state, action] += 1
    tried = counts > 0
    assert tried.sum() == 4 * len(world.free)
    assert np.abs(found[tried] / counts[tried][:, None] - chances[tried]).max() < 0.2
    assert np.abs(gains[tried] / counts[tried] - rewards[tried]).max() < 0.25
    if slip == 0:
        np.testing.assert_allclose(found[tried] / counts[tried][:, None], chances[tried])


def test_dynamic_programming_solves_a_corridor():
    world = make_environment("gridworld", {"rows": ["...G"], "cost": 0.1})
    best = value_iteration(*world.dynamics(), 0.9)
    np.testing.assert_allclose(best[2, 1], 0.9)
    np.testing.assert_allclose(best[1, 1], -0.1 + 0.9 * 0.9)
    np.testing.assert_allclose(best[1, 0], -0.1 + 0.9 * best[1, 1])  # against the wall
    assert not best[3].any()


def test_an_episode_ends_at_goal_and_pit_and_is_broken_off_at_its_limit():
    world = make_environment("gridworld", {"rows": [".G"], "max_steps": 2, "cost": 0.25})
    world.reset(0)
    assert world.step(1)[1:] == (0.75, True, False)
    world.reset(0)
    assert world.step(3)[1:] == (-0.25, False, False)
    assert world.step(3)[1:] == (-0.25, False, True)


@pytest.mark.parametrize(
    "arguments",
    [{"rows": ["..", "."]}, {"rows": ["GG"]}, {"rows": [".?G"]}, {"slip": 2}, {"wind": 1}],
)
def test_wrong_arguments_are_named(arguments):
    with pytest.raises(ConfigError):
        make_environment("gridworld", arguments)


def test_gymnasium_environments_are_seen_alike():
    pytest.importorskip("gymnasium")
    pole = make_environment("CartPole-v1", {})
    assert (pole.observation_shape, pole.num_actions, pole.max_steps) == ((4,), 2, 500)
    first = pole.reset(3)
    assert first.dtype == np.float32
    step = pole.step(1)
    assert (step.reward, step.terminated, step.truncated) == (1.0, False, False)
    np.testing.assert_array_equal(pole.reset(3), first)
    lake = make_environment("FrozenLake-v1", {"is_slippery": False})
    assert lake.observation_shape == (16,)
    assert lake.reset(0).tolist() == [1] + [0] * 15
    assert lake.step(2).observation.argmax() == 1
    for name in ("CartPole-v77", "Pendulum-v1"):
        with pytest.raises(ConfigError):
            make_environment(name, {})
