"""Kernels: the update of a whole, made part by part."""

import pytest
import torch

from hpc_train.optim import OPTIMIZERS, Settings

ELEMENTWISE = sorted(name for name, kind in OPTIMIZERS.items() if kind.kernel)


def test_all_but_layerwise_optimizers_have_one():
    others = {name for name, kind in OPTIMIZERS.items() if kind.by_layer}
    assert others == OPTIMIZERS.keys() - set(ELEMENTWISE)


@pytest.mark.parametrize("optimizer", ELEMENTWISE)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("centered", [False, True])
def test_parts_are_updated_as_the_whole_is(optimizer, momentum, centered):
    settings = Settings(
        lr=0.1, momentum=momentum, nesterov=momentum > 0, weight_decay=0.1, centered=centered
    )
    kind = OPTIMIZERS[optimizer]
    torch.manual_seed(0)
    whole = torch.nn.Parameter(torch.randn(37, dtype=torch.float64))
    weight = whole.detach().clone()
    theirs = kind.make([whole], settings)
    state = {what: torch.zeros(37).double() for what in kind.keeps(settings) - {"step"}}
    step = torch.zeros(())
    for _ in range(4):
        whole.grad = torch.randn(37, dtype=torch.float64)
        grad = whole.grad.clone()
        theirs.step()
        step += 1
        for at in (slice(0, 5), slice(5, 37)):
            own = {what: value[at] for what, value in state.items()}
            if "step" in kind.state:
                own["step"] = step
            kind.kernel(weight[at], grad[at], own, theirs.param_groups[0])
    assert torch.allclose(weight, whole.detach(), 1e-12, 1e-14)
    for what, value in state.items():
        assert torch.allclose(value, theirs.state[whole][what], 1e-12, 1e-14)
