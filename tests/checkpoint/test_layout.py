"""Parts: safetensors reads them, and their hashes are right."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from hpc_train.checkpoint import layout
from hpc_train.errors import CheckpointError

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.int8, torch.bool]
SHAPES = [(), (0,), (3,), (2, 5), (1, 0, 4)]


@given(st.dictionaries(st.text(min_size=1), st.tuples(*map(st.sampled_from, (DTYPES, SHAPES)))))
def test_safetensors_reads_what_was_written(tmp_path_factory, kinds):
    tensors = {
        name: torch.arange(torch.Size(shape).numel()).reshape(shape).to(dtype)
        for name, (dtype, shape) in kinds.items()
        if name != "__metadata__"
    }
    path = tmp_path_factory.getbasetemp() / "part"
    part = layout.write(path, tensors)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
    content = path.read_bytes()
    assert (part.size, part.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    layout.check(path.parent, part, range(part.num_pieces))


@pytest.fixture
def large(tmp_path):
    """A part of three pieces, the last of them short."""
    return tmp_path, layout.write(tmp_path / "part", {"x": torch.randn(2_500_000)})


def test_each_piece_has_a_sum_of_its_own(large):
    folder, part = large
    assert part.num_pieces == 3
    content = bytearray((folder / "part").read_bytes())
    content[layout.PIECE_BYTES + 5] ^= 64
    (folder / "part").write_bytes(content)
    layout.check(folder, part, [0, 2])
    with pytest.raises(CheckpointError, match="part differs"):
        layout.check(folder, part, [1])


def test_a_part_of_another_length_differs_for_whoever_looks(large):
    folder, part = large
    with (folder / "part").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="part differs"):
        layout.check(folder, part, [])


def test_what_the_format_cannot_hold_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"type torch.complex128 cannot be saved .*: z"):
        layout.write(tmp_path / "part", {"z": torch.zeros(2, dtype=torch.complex128)})
