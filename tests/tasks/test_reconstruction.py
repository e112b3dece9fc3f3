"""Reconstruction: torch's own losses and divergence, and codes keyed by sample."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional

from hpc_train.errors import ConfigError
from hpc_train.models import autoencoder
from hpc_train.tasks import Reconstruction, TensorBatch

X = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def network(variational=False):
    torch.manual_seed(1)
    return autoencoder((1, 4, 4), 3, [8], variational=variational).double()


def batch(start=0, stop=9, epoch=2):
    return TensorBatch({"x": X[start:stop]}, {}, torch.arange(start, stop), epoch)


def test_losses_are_torchs():
    model = network()
    out = model(X)
    squares = functional.mse_loss(out, X, reduction="none").flatten(1).mean(1)
    assert torch.allclose(Reconstruction().losses(model, batch()).values, squares)
    found = Reconstruction(loss="bce").losses(model, batch())
    entropy = functional.binary_cross_entropy(out.sigmoid(), X, reduction="none").flatten(1).mean(1)
    assert torch.allclose(found.values, entropy)
    assert float(found.sums["mse"].detach() / 9) == pytest.approx(
        float(functional.mse_loss(out.sigmoid(), X))
    )


def test_divergence_is_torchs():
    model = network(variational=True).eval()
    found = Reconstruction(kl_weight=2.0).losses(model, batch())
    mean, log_variance = model.posterior(X)
    kl = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    assert float(found.sums["kl"]) == pytest.approx(float(kl.sum()))
    plain = functional.mse_loss(model(X), X, reduction="none").flatten(1).mean(1)
    assert torch.allclose(found.values, plain + 2.0 * kl / 16)


def test_codes_belong_to_samples_and_epochs():
    model = network(variational=True).train()
    task = Reconstruction(kl_weight=1.0, seed=3)
    whole = task.losses(model, batch()).values
    parts = [task.losses(model, batch(a, b)).values for a, b in ((0, 2), (2, 9))]
    assert torch.allclose(whole, torch.cat(parts), rtol=1e-12)
    assert not torch.allclose(whole, task.losses(model, batch(epoch=3)).values)
    assert not torch.allclose(whole, task.losses(model.eval(), batch()).values)


@pytest.mark.parametrize(("variational", "weight"), [(False, 1.0), (True, None)])
def test_the_weight_belongs_to_variational_models(variational, weight):
    with pytest.raises(ConfigError, match=r"task\.kl_weight belongs to a variational model"):
        Reconstruction(kl_weight=weight).losses(network(variational), batch())


def test_unknown_losses_are_refused():
    with pytest.raises(ConfigError, match='unknown loss "l1", known: bce, mse'):
        Reconstruction(loss="l1")
