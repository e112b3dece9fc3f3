"""Adversarial training: each player's losses, gradients and noise."""

import pytest
import torch

from hpc_train.errors import ConfigError
from hpc_train.models import dcgan
from hpc_train.tasks import Adversarial, TensorBatch
from hpc_train.tasks.adversarial import CRITIC_LOSSES, fake, score, slope
from hpc_train.tasks.task import is_due

LN2 = 0.6931471805599453


@pytest.fixture
def model():
    torch.manual_seed(0)
    return dcgan((1, 8, 8), latent_size=5, channels=(8, 4)).double()


def batch(ids, epoch=0):
    generator = torch.Generator().manual_seed(1)
    images = torch.rand((20, 1, 8, 8), dtype=torch.float64, generator=generator)
    return TensorBatch({"image": images[ids]}, {}, torch.tensor(ids), epoch)


@pytest.mark.parametrize(
    ("loss", "critic", "generator"),
    [("hinge", 0.0 + 3.0, -2.0), ("wgan-gp", 0.5, -2.0), ("logistic", 0.2014132 + 2.126928, None)],
)
def test_losses_are_those_of_the_papers(loss, critic, generator):
    real, made = torch.tensor([1.5]), torch.tensor([2.0])
    assert float(CRITIC_LOSSES[loss](real, made)) == pytest.approx(critic)
    if generator is not None:
        assert float(Adversarial(loss).phases[1]._loss(made)) == generator


def test_generator_that_fools_nobody_has_the_loss_of_a_coin_at_score_zero():
    assert float(Adversarial("logistic").phases[1]._loss(torch.zeros(1))) == pytest.approx(LN2)


@pytest.mark.parametrize("loss", sorted(CRITIC_LOSSES))
@pytest.mark.parametrize("player", [0, 1])
def test_gradients_of_a_batch_are_the_sum_of_those_of_its_parts(model, loss, player):
    phase = Adversarial(loss, seed=3).phases[player]
    named = dict(phase.parameters(model))

    def gradient(parts):
        model.zero_grad()
        for ids in parts:
            phase.losses(model, batch(ids, epoch=2)).values.sum().backward()
        return torch.cat([p.grad.flatten() for p in named.values()])

    whole = gradient([[3, 1, 4, 15, 9]])
    assert whole.norm() > 0
    torch.testing.assert_close(gradient([[3], [1, 4, 15], [9]]), whole, rtol=1e-10, atol=1e-12)


def test_each_player_makes_gradients_of_its_own_parameters(model):
    critic, generator = Adversarial().phases
    critic.losses(model, batch([0, 1])).values.sum().backward()
    assert all(p.grad is None for p in model.generator.parameters())
    model.zero_grad()
    generator.losses(model, batch([0, 1])).values.sum().backward()
    assert all(p.grad is None for p in model.critic.parameters())
    assert all(p.requires_grad for p in model.parameters())
    assert {n for phase in (critic, generator) for n, _ in phase.parameters(model)} == {
        n for n, _ in model.named_parameters()
    }


def test_noise_belongs_to_seed_epoch_and_sample(model):
    ids = torch.tensor([5, 6])
    first = fake(model, 1, 0, ids)
    torch.testing.assert_close(fake(model, 1, 0, ids[1:]), first[1:])
    for other in (fake(model, 2, 0, ids), fake(model, 1, 1, ids), fake(model, 1, 0, ids + 2)):
        assert (other - first).abs().max() > 1e-4


def test_slope_is_the_norm_of_the_gradient_by_the_sample(model):
    images = batch([0, 1]).inputs["image"]
    step = 1e-6
    expected = []
    for image in images:
        parts = []
        for place in range(64):
            moved = image.clone()
            moved.view(-1)[place] += step
            parts.append((score(model, moved[None]) - score(model, image[None])) / step)
        expected.append(torch.cat(parts).norm())
    torch.testing.assert_close(slope(model, images), torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_gradient_penalty_is_part_of_evaluations_too(model):
    plain, bent = (Adversarial("wgan-gp", gradient_penalty=g).phases[0] for g in (0, 10))
    with torch.no_grad():
        values = [phase.losses(model, batch([0, 1])).values for phase in (plain, bent)]
    assert (values[1] > values[0]).all()


def test_generator_waits_for_the_critic():
    critic, generator = Adversarial(critic_steps=3).phases
    assert [is_due(critic, n) for n in range(6)] == [True] * 6
    assert [is_due(generator, n) for n in range(6)] == [False, False, True] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "hing"}, 'unknown loss "hing", known: hinge, logistic, wgan-gp'),
        ({"critic_steps": 0}, "positive integer"),
        ({"gradient_penalty": -1}, "number >= 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Adversarial(**arguments)


def test_other_models_are_refused():
    with pytest.raises(ConfigError, match="Linear has no critic"):
        list(Adversarial().phases[0].parameters(torch.nn.Linear(2, 2)))


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 20)])
def test_dcgan_makes_images_of_the_shape_of_the_real_ones(shape, norm):
    model = dcgan(shape, channels=(6, 4), generator_norm=norm, critic_norm=norm)
    made = fake(model, 0, 0, torch.arange(3))
    assert made.shape == (3, *shape)
    assert 0 <= made.min() <= made.max() <= 1
    assert score(model, made).shape == (3,)


@pytest.mark.parametrize(
    "arguments",
    [{"channels": (8, 8, 8, 8)}, {"channels": ()}, {"critic_norm": "group"}, {"latent_size": 0}],
)
def test_dcgan_refuses_what_it_cannot_build(arguments):
    with pytest.raises(ConfigError):
        dcgan((1, 8, 8), **arguments)
