"""Adversarial training: a generator makes samples that a critic cannot tell from real ones.

    noise z_i  -> generator -> fake x'_i -> critic -> score          i: a sample of the batch; its
    sample x_i ------------------------> critic -> score          noise is a function of its id

Each batch trains the critic, and each `critic_steps`-th one the generator after it.
Goodfellow et al., "Generative adversarial nets", NeurIPS 2014.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.functional import relu, softplus

from hpc_train.errors import ConfigError, HpcTrainError, unknown
from hpc_train.keyed import normals, uniforms
from hpc_train.philox import derive
from hpc_train.tasks.task import Losses, TensorBatch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

# name -> losses (n,) of the critic, given its scores of real and of fake samples, and of the
# generator, given those of the fake ones
CRITIC_LOSSES: dict[str, Loss] = {
    # Lim and Ye, "Geometric GAN", 2017
    "hinge": lambda real, fake: relu(1 - real) + relu(1 + fake),
    # Gulrajani et al., "Improved training of Wasserstein GANs", NeurIPS 2017
    "wgan-gp": lambda real, fake: fake - real,
    # Goodfellow et al. 2014, the generator's loss not saturating
    "logistic": lambda real, fake: softplus(-real) + softplus(fake),
}
GENERATOR_LOSSES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "hinge": torch.neg,
    "wgan-gp": torch.neg,
    "logistic": lambda fake: softplus(-fake),
}

# streams of a sample's random numbers
_CRITIC, _GENERATOR, _MIX, _SHOW = 48, 49, 50, 51


class Adversarial:
    """Two players; the model has `generator`, `critic` and `latent_size`, as `models.dcgan` has.

    Args:
        loss: hinge, wgan-gp or logistic.
        critic_steps: the critic is trained this often for each time the generator is, >= 1.
        gradient_penalty: factor of (norm of the critic's gradient - 1)^2 between real and fake
            samples, >= 0; by default 10 for wgan-gp, else 0.
        seed: of the run.
    """

    metrics = ("real_score", "fake_score")

    def __init__(
        self,
        loss: str = "hinge",
        critic_steps: int = 1,
        gradient_penalty: float | None = None,
        seed: int = 0,
    ) -> None:
        if loss not in CRITIC_LOSSES:
            raise ConfigError(unknown("loss", loss, CRITIC_LOSSES), where="task.loss")
        if type(critic_steps) is not int or critic_steps < 1:
            raise ConfigError(
                f"task.critic_steps must be a positive integer (task.critic_steps: {critic_steps})"
            )
        if gradient_penalty is None:
            gradient_penalty = 10.0 if loss == "wgan-gp" else 0.0
        if type(gradient_penalty) not in (int, float) or not 0 <= gradient_penalty < 1e9:
            raise ConfigError(
                "task.gradient_penalty must be a number >= 0 "
                f"(task.gradient_penalty: {gradient_penalty!r})"
            )
        self._seed = seed
        critic = Critic(CRITIC_LOSSES[loss], float(gradient_penalty), seed)
        generator = Generator(GENERATOR_LOSSES[loss], critic_steps, seed)
        self._phases: list[Critic | Generator] = [critic, generator]

    @property
    def phases(self) -> Sequence[Critic | Generator]:
        """The critic first: its losses are the evaluation's."""
        return self._phases

    def generate(self, model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
        """Samples `ids` of those that the generator can make, the same whenever it is asked."""
        return fake(model, derive(self._seed, _SHOW), 0, ids)


class Critic:
    """Learns to give real samples high scores, and fake ones low scores."""

    name = "critic"

    def __init__(self, loss: Loss, gradient_penalty: float, seed: int) -> None:
        self._loss = loss
        self._penalty = gradient_penalty
        self._noise, self._mix = derive(seed, _CRITIC), derive(seed, _MIX)

    def parameters(self, model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        """Those of the critic."""
        return _named(model, "critic")

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """One loss for each pair of a real and a fake sample."""
        (real,) = batch.inputs.values()
        with torch.no_grad():
            made = fake(model, self._noise, batch.epoch, batch.ids)
        if made.shape != real.shape:
            raise HpcTrainError(
                f"generated samples must have the shape of real ones "
                f"(generated: {tuple(made.shape)}, real: {tuple(real.shape)})",
                where="model.name",
            )
        real_scores, fake_scores = score(model, real), score(model, made)
        values = self._loss(real_scores, fake_scores)
        if self._penalty:
            shares = uniforms(self._mix, batch.epoch, batch.ids.to(real.device), 1).to(real)
            shares = shares.view(-1, *[1] * (real.dim() - 1))
            norms = slope(model, shares * real + (1 - shares) * made)
            values = values + self._penalty * (norms - 1).square()
        sums = {"real_score": real_scores.sum(), "fake_score": fake_scores.sum()}
        return Losses(values, sums=sums)


class Generator:
    """Learns to make samples to which the critic gives high scores."""

    name = "generator"

    def __init__(self, loss: Callable[[torch.Tensor], torch.Tensor], every: int, seed: int) -> None:
        self._loss = loss
        self.every = every
        self._noise = derive(seed, _GENERATOR)

    def parameters(self, model: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
        """Those of the generator."""
        return _named(model, "generator")

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """One loss for each fake sample."""
        with _frozen(_player(model, "critic")):
            return Losses(
                self._loss(score(model, fake(model, self._noise, batch.epoch, batch.ids)))
            )


def fake(model: nn.Module, key: int, epoch: int, ids: torch.Tensor) -> torch.Tensor:
    """What the generator makes of the noise of each sample, shape (n, *image_shape)."""
    generator = _player(model, "generator")
    weight = next(generator.parameters())
    size = getattr(model, "latent_size", None)
    if not isinstance(size, int):
        raise _unfit(model, "latent_size")
    noise = normals(key, epoch, ids.to(weight.device), size, torch.float64)
    made: torch.Tensor = generator(noise.to(weight.dtype))
    return made


def score(model: nn.Module, samples: torch.Tensor) -> torch.Tensor:
    """The critic's scores, shape (n,)."""
    scores: torch.Tensor = _player(model, "critic")(samples)
    if scores.dim() == 2 and scores.shape[1] == 1:
        scores = scores.squeeze(1)
    return scores


def slope(model: nn.Module, samples: torch.Tensor) -> torch.Tensor:
    """The norm of the gradient of each score by its sample, shape (n,); can be derived again."""
    with torch.enable_grad():
        samples = samples.detach().requires_grad_()
        scores = score(model, samples)
        (gradient,) = torch.autograd.grad(scores.sum(), samples, create_graph=True)
        # a tiny number keeps the root's own derivative finite where the gradient is zero
        return (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()


def _named(model: nn.Module, player: str) -> Iterator[tuple[str, nn.Parameter]]:
    return _player(model, player).named_parameters(prefix=player)


def _player(model: nn.Module, name: str) -> nn.Module:
    found = getattr(model, name, None)
    if not isinstance(found, nn.Module):
        raise _unfit(model, name)
    return found


def _unfit(model: nn.Module, name: str) -> ConfigError:
    return ConfigError(
        f"task adversarial needs a model with generator, critic and latent_size "
        f"({type(model).__name__} has no {name})",
        where="model.name",
        hint='use model.name = "dcgan"',
    )


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Make no gradients for the parameters of a module in the graph that is built inside."""
    wanting = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
