"""Networks over sequences, residual networks and autoencoders: shapes, and who sees what."""

import pytest
import torch

from hpc_train.errors import ConfigError
from hpc_train.models import autoencoder, conv_autoencoder, gru, lstm, resnet, transformer

SMALL = {"layers": 2, "width": 16}
TOKENS = torch.randint(11, (3, 6), generator=torch.Generator().manual_seed(1))
VECTORS = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("builder", [transformer, lstm, gru])
@pytest.mark.parametrize(
    ("pool", "shape"), [("none", (3, 6, 11)), ("mean", (3, 11)), ("last", (3, 11))]
)
def test_outputs_are_of_positions_or_sequences(builder, pool, shape):
    model = builder((6,), 11, num_tokens=11, pool=pool, **SMALL)
    assert model(TOKENS).shape == shape
    assert model.encode(TOKENS).shape == (*shape[:-1], 16)
    assert builder((6, 5), 11, pool=pool, **SMALL)(VECTORS).shape == shape
    assert builder((6,), 11, pool=pool, **SMALL)(VECTORS[..., 0]).shape == shape


def changed(model):
    """Which positions' outputs change with the input of position 3."""
    other = TOKENS.clone()
    other[:, 3] = (other[:, 3] + 1) % 11
    model.eval()
    return (model(TOKENS) != model(other)).any(2).any(0).tolist()


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "none"])
def test_a_causal_transformer_looks_back_only(positions):
    model = transformer((6,), 11, num_tokens=11, positions=positions, **SMALL)
    assert changed(model) == [False, False, False, True, True, True]
    both = transformer((6,), 11, num_tokens=11, causal=False, positions=positions, **SMALL)
    assert all(changed(both))


def test_recurrent_networks_look_back_unless_bidirectional():
    assert changed(lstm((6,), 11, num_tokens=11, **SMALL)) == [False] * 3 + [True] * 3
    assert all(changed(gru((6,), 11, num_tokens=11, bidirectional=True, **SMALL)))


def test_positions_matter_to_attention():
    swapped = TOKENS[:, [1, 0, 2, 3, 4, 5]]
    for positions, alike in (("learned", False), ("sinusoidal", False), ("none", True)):
        model = transformer((6,), 11, 11, causal=False, positions=positions, **SMALL)
        assert torch.allclose(model(TOKENS)[:, 5], model(swapped)[:, 5], atol=1e-6) == alike


def test_the_head_is_tied_to_the_embedding():
    model = transformer((6,), 11, num_tokens=11, **SMALL)
    assert model.head.weight is model.entrance.embedding.weight
    assert transformer((6,), 11, 11, tie=False, **SMALL).head.weight.shape == (11, 16)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 10, "heads": 4}, "multiple of model.heads"),
        ({"positions": "rotary"}, 'unknown positions "rotary"'),
        ({"pool": "max"}, 'unknown pool "max"'),
    ],
)
def test_arguments_of_a_transformer_are_checked(arguments, message):
    with pytest.raises(ConfigError, match=message):
        transformer((6,), 11, 11, **arguments)


def test_images_are_no_sequences():
    with pytest.raises(ConfigError, match="needs tokens of shape"):
        transformer((1, 8, 8), 10)


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_a_residual_network_has_the_depth_that_was_asked_for(norm):
    model = resnet((3, 9, 8), 7, channels=[4, 8], blocks=3, norm=norm)
    images = torch.randn(2, 3, 9, 8)
    assert model(images).shape == (2, 7)
    assert model.encode(images).shape == (2, 8)
    layers = [m for m in model.modules() if getattr(m, "kernel_size", None) == (3, 3)]
    assert len(layers) + 1 == 2 * 3 * 2 + 2  # and the head


@pytest.mark.parametrize("variational", [False, True])
@pytest.mark.parametrize("builder", [autoencoder, conv_autoencoder])
def test_autoencoders_go_to_a_code_and_back(builder, variational):
    model = builder((2, 8, 4), latent_size=5, variational=variational)
    images = torch.randn(3, 2, 8, 4)
    assert model.encode(images).shape == (3, 5)
    assert model(images).shape == images.shape
    assert torch.equal(model.decode(model.encode(images)), model(images))


def test_pictures_that_cannot_be_halved_are_refused():
    with pytest.raises(ConfigError, match="multiples of 4 for 2"):
        conv_autoencoder((1, 6, 8))
