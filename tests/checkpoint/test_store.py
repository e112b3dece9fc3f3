"""The store: whole or not at all, the newest valid set wins, and nothing valid is ever lost."""

import errno
import json
import os

import pytest
import torch

from hpc_train.checkpoint import Store, layout
from hpc_train.errors import CheckpointError


class Killed(BaseException):
    """The process ends here: nothing may clean up."""


def tensors(value, size=5):
    return {"model/a": torch.full((size,), float(value)), "model/b": torch.tensor(value)}


def value_of(saved):
    assert torch.equal(saved.tensors["model/a"], tensors(int(saved.tensors["model/b"]))["model/a"])
    return int(saved.tensors["model/b"])


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


@pytest.fixture
def fail_at(monkeypatch):
    """Let the n-th call of a function that changes the disk raise; gives how many there were."""
    calls = []

    def install(number, error):
        calls.clear()
        for home, name in [(os, "fsync"), (os, "rename"), (os, "mkdir"), (layout, "write")]:
            monkeypatch.setattr(home, name, guarded(getattr(home, name), number, error))

    def guarded(function, number, error):
        def call(*arguments, **options):
            calls.append(function.__name__)
            if len(calls) == number + 1:
                raise error
            return function(*arguments, **options)

        return call

    def lift():
        monkeypatch.undo()
        return calls

    return install, lift


def test_what_was_saved_comes_back(folder):
    state = {
        "f64": torch.arange(3, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(7),
        "bool": torch.tensor([True, False]),
        "half": torch.ones(2, dtype=torch.bfloat16),
    }
    path = Store(folder).save(12, state, {"cursor": {"epoch": 1}, "list": [1, None]})
    assert path.name == "step-00000012"
    assert sorted(p.name for p in path.iterdir()) == ["manifest.json", "part-000.safetensors"]
    saved = Store(folder).newest()
    assert (saved.manifest.step, saved.manifest.notes["list"]) == (12, [1, None])
    assert saved.tensors.keys() == state.keys()
    for name, tensor in state.items():
        assert saved.tensors[name].dtype == tensor.dtype
        assert torch.equal(saved.tensors[name], tensor)


def test_views_ties_and_transposed_tensors_are_saved_as_they_look(folder):
    base = torch.arange(12.0)
    grid = base.view(3, 4)
    image = torch.arange(16.0).view(1, 2, 2, 4).contiguous(memory_format=torch.channels_last)
    state = {
        "a": base[2:5],
        "tied": base[2:5],
        "t": grid.t(),
        "wide": torch.ones(1).expand(4),
        "i": image,
    }
    Store(folder).save(1, state, {})
    saved = Store(folder).newest().tensors
    assert all(torch.equal(saved[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("keep_last", [1, 2, 3])
def test_the_newest_sets_are_kept(folder, keep_last):
    kept = Store(folder, keep_last)
    for step in (5, 50, 500, 5000):
        kept.save(step, tensors(step), {})
    assert kept.steps() == [5, 50, 500, 5000][-keep_last:]
    assert value_of(kept.newest()) == 5000


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("keep_last", [1, 2])
def test_killed_at_any_point_a_whole_set_is_there(tmp_path, fail_at, keep_last, again):
    """`again`: a set of the same step is replaced, as after batches whose updates were skipped."""
    install, lift = fail_at
    number, done = 0, False
    while not done:
        folder = tmp_path / f"run{number}"
        Store(folder, keep_last).save(1, tensors(1), {})
        install(number, Killed())
        try:
            Store(folder, keep_last).save(1 if again else 2, tensors(2), {})
            done = True
        except Killed:
            pass
        lift()
        assert value_of(Store(folder, keep_last).newest()) in ((2,) if done else (1, 2))
        after = Store(folder, keep_last)
        after.save(3, tensors(3), {})
        assert value_of(after.newest()) == 3
        assert not list(folder.glob(".tmp-*"))
        assert not list(folder.glob("*.old"))
        number += 1
    assert number > 6


@pytest.mark.parametrize("again", [False, True])
def test_a_full_disk_is_an_error_and_older_sets_are_as_they_were(tmp_path, fail_at, again):
    install, lift = fail_at
    for number in range(7):
        folder = tmp_path / f"run{number}"
        kept = Store(folder, 1)
        kept.save(1, tensors(1), {})
        install(number, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        with pytest.raises(
            CheckpointError, match="cannot save a checkpoint: No space left"
        ) as caught:
            kept.save(1 if again else 2, tensors(2), {})
        called = lift()
        assert "run.dir" in caught.value.hint
        renamed = called.count("rename") > again and called[number] == "fsync"
        assert value_of(kept.newest()) == (2 if renamed else 1)
        assert not list(folder.glob(".tmp-*"))


def damage_truncate(path):
    part = path / "part-000.safetensors"
    part.write_bytes(part.read_bytes()[:-3])


def damage_flip(path):
    part = path / "part-000.safetensors"
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)


def damage_step(path):
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"step": ', '"step": 7'))


def damage_version(path):
    document = json.loads((path / "manifest.json").read_text())
    document["format_version"] = 99
    (path / "manifest.json").write_text(json.dumps(document))


DAMAGES = {
    "truncated": (damage_truncate, "differs from its manifest"),
    "flipped": (damage_flip, "differs from its manifest"),
    "no part": (lambda p: (p / "part-000.safetensors").unlink(), "cannot read: No such file"),
    "no manifest": (lambda p: (p / "manifest.json").unlink(), "incomplete: No such file"),
    "half manifest": (lambda p: (p / "manifest.json").write_text('{"step": 2'), "damaged manifest"),
    "other manifest": (lambda p: (p / "manifest.json").write_text("[]"), "damaged manifest"),
    "changed manifest": (damage_step, "damaged manifest.*checksum differs"),
    "version": (damage_version, "must be of format version 1"),
}


@pytest.mark.parametrize("kind", sorted(DAMAGES))
def test_a_damaged_set_is_named_and_the_older_one_used(folder, caplog, kind):
    damage, message = DAMAGES[kind]
    kept = Store(folder)
    kept.save(1, tensors(1), {})
    path = kept.save(2, tensors(2), {})
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        kept.load(path)
    assert value_of(kept.newest()) == 1
    assert "passing over a damaged checkpoint" in caplog.text
    assert str(path) in caplog.text
    damage(kept.path(1))
    with pytest.raises(CheckpointError, match="no valid checkpoint to resume from"):
        kept.newest()


def test_a_manifest_cannot_point_out_of_its_folder(folder):
    path = Store(folder).save(1, tensors(1), {})
    document = json.loads((path / "manifest.json").read_text())
    document["parts"][0]["file"] = "../../secret.safetensors"
    del document["manifest_crc32"]
    (path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match="cannot read"):
        Store(folder).load(path)


def test_the_first_sets_had_one_sum_for_the_whole_part(folder):
    path = Store(folder).save(1, tensors(1), {})
    document = json.loads((path / "manifest.json").read_text())
    del document["manifest_crc32"], document["parts"][0]["crc32"]
    del document["parts"][0]["piece_bytes"]
    (path / "manifest.json").write_text(json.dumps(document))
    assert value_of(Store(folder).load(path)) == 1
    damage_flip(path)
    assert Store(folder).load(path, reader=1, num_readers=2)  # the other one checks it
    with pytest.raises(CheckpointError, match="part differs from its manifest"):
        Store(folder).load(path, reader=0, num_readers=2)


def test_no_folder_is_no_checkpoint(folder):
    assert Store(folder).steps() == []
    with pytest.raises(CheckpointError, match="no valid checkpoint"):
        Store(folder).newest()


def test_other_things_in_the_folder_are_left_alone(folder):
    kept = Store(folder, 1)
    kept.save(1, tensors(1), {})
    (folder / "step-notes.txt").write_text("mine")
    kept.save(2, tensors(2), {})
    assert (folder / "step-notes.txt").read_text() == "mine"
    assert kept.steps() == [2]
