"""Weights from elsewhere, frozen layers, and layers that are opened later."""

import logging

import pytest
import torch
from safetensors.torch import save_file

from hpc_train.errors import CheckpointError, ConfigError
from hpc_train.train.techniques.transfer import match
from hpc_train.train.weights import find_weights
from hpc_train.world import RankError
from tests.train.runs import trainer

SGD = {"name": "sgd", "lr": 0.02, "momentum": 0.5, "weight_decay": 0.1}
HARD = {"l2": 0.1, "max_norm": 0.2}
KEYS = ("1.weight", "1.bias", "4.weight", "4.bias")


def fit(tmp_path, name, epochs=1, resume=None, **sections):
    """The state of the network after a run in the folder `name`."""
    run = {"epochs": epochs, "dir": str(tmp_path / name)}
    sections.setdefault("optimizer", SGD)
    made = trainer(tmp_path, run=run, **sections)
    made.fit(resume=resume)
    return {key: value.clone() for key, value in made.model.state_dict().items()}


def first(tmp_path, name="first"):
    """The first weights, of a run that does not move."""
    return fit(tmp_path, name, optimizer={"name": "sgd", "lr": 1e-300})


def same(a, b, keys=KEYS):
    return [torch.equal(a[key], b[key]) for key in keys]


def test_names_are_matched_renamed_and_told():
    own = {"body.0.w": (2, 3), "body.1.w": (3,), "head.w": (5,), "head.b": (5,), "new": (1,)}
    there = {"module.0.w": (2, 3), "module.1.w": (4,), "head.w": (5,), "head.b": (5,), "old": ()}
    found = match(own, there, ["*"], {"module.": "body."}, ["head.*"])
    assert found.loaded == {"body.0.w": "module.0.w"}
    assert found.replaced == ["head.w", "head.b"]
    assert found.missing == ["new"]
    assert found.mismatched == {"body.1.w": ((3,), (4,))}
    assert found.unused == ["old"]
    told = "\n".join(found.lines("there.pt"))
    assert "1 tensors loaded from there.pt" in told
    assert "left as it was: body.1.w has shape (3,), (4,) there" in told
    assert match(own, there, ["head.w"], {}, []).loaded == {"head.w": "head.w"}


def test_weights_of_runs_sets_safetensors_and_state_dicts(tmp_path):
    trained = fit(tmp_path, "source", regularization={"ema_decay": 0.5})
    (saved,) = (tmp_path / "source" / "checkpoints").glob("step-*")
    save_file(trained, tmp_path / "w.safetensors")
    torch.save(trained, tmp_path / "w.pt")
    torch.save({"epoch": 3, "state_dict": trained}, tmp_path / "nested.pt")
    sources = [tmp_path / "source", saved]
    sources += [tmp_path / name for name in ("w.safetensors", "w.pt", "nested.pt")]
    for source in sources:
        found, _ = find_weights(str(source))
        assert all(same(found, trained)), source
    still = {"name": "sgd", "lr": 1e-300}
    transfer = {"source": str(tmp_path / "w.pt"), "replace": ["4.*"]}
    other = fit(tmp_path, "other", optimizer=still, transfer=transfer)
    assert same(other, trained) == [True, True, False, False]
    assert all(same(other, first(tmp_path), KEYS[2:]))


class Evil:
    def __reduce__(self):
        return print, ("code of a file ran",)


def test_files_that_are_no_weights(tmp_path, capsys):
    torch.save(Evil(), tmp_path / "evil.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678")
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    for name in ("evil.pt", "broken.safetensors", "list.pt"):
        with pytest.raises(CheckpointError, match=name):
            find_weights(str(tmp_path / name))
    assert "ran" not in capsys.readouterr().out
    with pytest.raises(ConfigError, match="neither a file of weights nor a run"):
        find_weights(str(tmp_path / "nothing"))


def test_sources_that_do_not_fit_and_patterns_that_match_nothing(tmp_path, caplog):
    save_file({"layer.w": torch.zeros(2)}, tmp_path / "w.safetensors")
    with pytest.raises(RankError, match="nothing to load fits"):
        fit(tmp_path, "a", transfer={"source": str(tmp_path / "w.safetensors")})
    for key in ("freeze", "replace"):
        with pytest.raises(RankError, match=f"transfer.{key} must name parameters"):
            fit(tmp_path, "b", transfer={key: ["body.*"]})
    with pytest.raises(ConfigError, match="numbers of epochs"):
        fit(tmp_path, "c", transfer={"unfreeze": {"soon": ["1.*"]}})
    save_file({"1.bias": torch.zeros(4), "4.bias": torch.zeros(99)}, tmp_path / "w.safetensors")
    with caplog.at_level(logging.WARNING):
        fit(tmp_path, "d", transfer={"source": str(tmp_path / "w.safetensors")})
    assert "2 tensors of the model were not found there, and 1 have another shape" in caplog.text


def test_frozen_layers_do_not_change_and_have_no_state(tmp_path):
    before = first(tmp_path)
    after = fit(tmp_path, "frozen", regularization=HARD, transfer={"freeze": ["1.*"]})
    assert same(after, before) == [True, True, False, False]


@pytest.mark.parametrize("name", ["sgd", "adam", "lamb"])
def test_layers_that_are_opened_later_are_frozen_until_then(tmp_path, name):
    before = first(tmp_path)
    optimizer = {**SGD, "name": "sgd"} if name == "sgd" else {"name": name, "lr": 0.01}
    sections = {"optimizer": optimizer, "regularization": HARD}
    opened = {"transfer": {"unfreeze": {"1": ["1.*"]}}, **sections}
    frozen = fit(tmp_path, "frozen", transfer={"freeze": ["1.*"]}, **sections)
    once = fit(tmp_path, "run", **opened)
    assert all(same(once, before, KEYS[:2]))  # no decay, penalty, norm, nor update
    assert all(same(once, frozen))  # nor a part in the norm of gradients
    twice = fit(tmp_path, "twice", epochs=2, **opened)
    assert same(twice, before) == [False] * 4
    again = fit(tmp_path, "run", epochs=2, resume=tmp_path / "run", **opened)
    assert all(same(again, twice))


def test_a_run_goes_on_without_the_source(tmp_path):
    source = tmp_path / "w.pt"
    torch.save(first(tmp_path), source)
    transfer = {"source": str(source)}
    whole = fit(tmp_path, "whole", epochs=2, transfer=transfer)
    fit(tmp_path, "parts", transfer=transfer)
    source.unlink()
    again = fit(tmp_path, "parts", epochs=2, resume=tmp_path / "parts", transfer=transfer)
    assert all(same(again, whole))
