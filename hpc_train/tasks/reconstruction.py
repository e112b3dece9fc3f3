"""Reconstruction: the inputs themselves are the targets.

    plain         loss = mean over the values of a sample of d(x, x')
    variational   loss = the same + kl_weight * KL(N(mean, variance) || N(0, 1)) / number of values

which is the negative evidence lower bound of Kingma and Welling, ICLR 2014, per value (kl_weight =
1); other weights are those of Higgins et al., "beta-VAE", ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from hpc_train.errors import ConfigError, DataError, unknown
from hpc_train.keyed import normals
from hpc_train.philox import derive
from hpc_train.tasks.task import Losses, Supervised, TensorBatch

_NOISE = 0x5AE  # apart from other randomness of a run


def _squares(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return (out - x).square()


def _cross_entropy(out: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(out, x, reduction="none")


# name -> distance of each value of what the model gives from the input's
DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mse": _squares,
    "bce": _cross_entropy,
}


class Reconstruction(Supervised):
    """Distance of reconstructions from inputs; the metrics are mse and, if variational, kl.

    Args:
        loss: mse, or bce for inputs in [0, 1] of which the model gives the logits.
        kl_weight: >= 0, for a variational model: weight of its codes' divergence from N(0, 1), in
            nats; None for plain models. Codes are drawn in training, means are taken in evaluation.
        seed: of the run.
    """

    def __init__(self, loss: str = "mse", kl_weight: float | None = None, seed: int = 0) -> None:
        if loss not in DISTANCES:
            raise ConfigError(unknown("loss", loss, DISTANCES), where="task.loss")
        if kl_weight is not None and (type(kl_weight) not in (int, float) or not kl_weight >= 0):
            raise ConfigError(
                f"task.kl_weight must be a number >= 0 (task.kl_weight: {kl_weight!r})"
            )
        self._name, self._distance = loss, DISTANCES[loss]
        self._kl_weight = kl_weight
        self._noise = derive(seed, _NOISE)
        self.metrics = ("mse",) if kl_weight is None else ("mse", "kl")

    def losses(self, model: nn.Module, batch: TensorBatch) -> Losses:
        """One loss per sample; see the top of this file."""
        (x,) = batch.inputs.values()
        is_variational = callable(getattr(model, "posterior", None))
        if is_variational != (self._kl_weight is not None):
            raise ConfigError(
                "task.kl_weight belongs to a variational model, and a variational model needs it "
                f"(task.kl_weight: {self._kl_weight}, model: {type(model).__name__})",
                hint="set model.variational = true and task.kl_weight = 1, or leave both out",
            )
        kl = None
        if is_variational:
            out, kl = self._drawn(model, batch, x)
        else:
            out = batch.through(model)
        if out.shape != x.shape:
            raise DataError(
                f"a reconstruction must have the shape of its input (reconstruction: "
                f"{tuple(out.shape)}, input: {tuple(x.shape)})",
                hint='use a model such as "autoencoder"',
            )
        values = self._distance(out, x).flatten(1).mean(1)
        pictures = out.sigmoid() if self._name == "bce" else out
        sums = {"mse": _squares(pictures, x).flatten(1).mean(1).sum()}
        if kl is None or self._kl_weight is None:
            return Losses(values, sums=sums)
        return Losses(values + self._kl_weight * kl / x[0].numel(), sums={**sums, "kl": kl.sum()})

    def _drawn(
        self, model: nn.Module, batch: TensorBatch, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstructions of drawn codes, and the divergence (n,) of their distributions."""
        mean, log_variance = model.posterior(x)  # type: ignore[operator]
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
        code = mean
        if model.training:
            ids = batch.ids.to(mean.device)
            noise = normals(self._noise, batch.epoch, ids, mean.shape[1], torch.float64)
            code = mean + (0.5 * log_variance).exp() * noise.to(mean.dtype)
        return model.decode(code), kl  # type: ignore[operator]
