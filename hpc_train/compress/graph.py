"""Which channels of a network hang together: those of a space live or go together.

    conv1 -> norm1 -> relu -> conv2 -> norm2 -> (+) -> flatten -> linear
               |                                 |
               +---------------------------------+        one space: out of conv1, norm1, out of
                                                          conv2, norm2, columns of linear

    space      channels that are one thing, as an addition or a norm makes them
    slot       where a space lies in a tensor: produced, normalised, or consumed along an axis
    repeat     numbers per channel along it: flattening (64, 7, 7) gives 49

What the graph does otherwise (attention, concatenation, grouped convolutions) fixes the spaces
that it touches: they are never pruned, so that what is pruned is always right.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from hpc_train.errors import UsageError

PRODUCED, NORMALISED, CONSUMED = "produced", "normalised", "consumed"

# f(0) = 0, one number at a time, or over the places of one channel
_PASSING = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Hardswish,
    nn.modules.dropout._DropoutNd, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d,
    nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d,
)  # fmt: skip
_PASSING_CALLS = {
    "relu", "relu_", "relu6", "leaky_relu", "elu", "gelu", "silu", "tanh", "hardswish", "dropout",
    "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d", "contiguous",
    "clone", "boolean_dispatch",
}  # fmt: skip
_POOLS = {functional.max_pool2d, functional.max_pool1d, functional.adaptive_max_pool2d}
_SUMS = {"add", "add_", "iadd", "sub", "sub_", "isub"}
_PRODUCTS = {"mul", "mul_", "imul", "truediv", "div", "div_"}
_RESHAPES = {"flatten", "view", "reshape"}


@dataclass(frozen=True)
class Slot:
    """Where a space lies: `tensor` of module `module`, along `axis`, `repeat` numbers a channel."""

    module: str
    tensor: str
    axis: int
    repeat: int
    role: str

    @property
    def name(self) -> str:
        """The name of the tensor in the network."""
        return f"{self.module}.{self.tensor}" if self.module else self.tensor


@dataclass(frozen=True)
class Space:
    """Channels that can be removed, `size` of them, and all places where they are met."""

    size: int
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class Layer:
    """A layer that multiplies: its operations are in proportion to the channels of both sides.

    Attributes:
        before, after: numbers of spaces; None where channels are fixed.
    """

    name: str
    flops: int
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Coupling:
    """The spaces of a network that can be pruned, and what its layers cost for one sample."""

    spaces: tuple[Space, ...]
    layers: tuple[Layer, ...]

    def flops(self, alive: Sequence[int]) -> float:
        """Operations for one sample (2 a multiplication) with so many channels in each space."""
        parts = [count / space.size for count, space in zip(alive, self.spaces, strict=True)]
        total = 0.0
        for layer in self.layers:
            sides = [parts[side] for side in (layer.before, layer.after) if side is not None]
            total += layer.flops * torch.tensor(sides).prod().item() if sides else layer.flops
        return total


class _Tracer(fx.Tracer):
    """Modules without parts are one thing, whoever wrote them."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return not any(True for _ in m.children()) or super().is_leaf_module(
            m, module_qualified_name
        )


class _Spaces:
    """Spaces while they are found: those that turn out to be one are joined."""

    def __init__(self) -> None:
        self._parents: list[int] = []
        self.sizes: list[int] = []
        self._fixed: list[bool] = []
        self.slots: list[list[Slot]] = []

    def new(self, size: int, *, fixed: bool = False) -> int:
        """A space of `size` channels."""
        self.sizes.append(size)
        self._fixed.append(fixed)
        self.slots.append([])
        self._parents.append(len(self._parents))
        return len(self._parents) - 1

    def find(self, space: int) -> int:
        """The space that it has been joined with."""
        while self._parents[space] != space:
            space = self._parents[space]
        return space

    def fix(self, space: int) -> None:
        """Never prune it."""
        self._fixed[self.find(space)] = True

    def is_fixed(self, space: int) -> bool:
        """Whether it is never pruned."""
        return self._fixed[self.find(space)]

    def join(self, one: int, other: int) -> None:
        """Let both be one."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        self._parents[other] = one
        self.slots[one] += self.slots[other]
        self._fixed[one] = self._fixed[one] or self._fixed[other]


@dataclass(frozen=True)
class _Value:
    """What a node gives: axis 1 holds a space, `repeat` numbers a channel."""

    space: int
    repeat: int


class _Walk:
    """Goes through a traced network in the order of use."""

    def __init__(self, traced: fx.GraphModule, passing: tuple[type[nn.Module], ...]) -> None:
        self._traced = traced
        self._passing = (*_PASSING, *passing)
        self._spaces = _Spaces()
        self._values: dict[fx.Node, _Value] = {}
        self._layers: list[tuple[str, int, int | None, int]] = []
        self._seen: dict[int, list[int]] = {}
        uses = [(id(p), n) for n, p in traced.named_parameters(remove_duplicate=False)]
        self._tied = {key for key, _ in uses if sum(key == other for other, _ in uses) > 1}

    def run(self) -> Coupling:
        """The spaces, once all nodes were looked at."""
        for node in self._traced.graph.nodes:
            if node.op == "output":
                self._fix_inputs(node)
            elif node.op == "placeholder":
                self._fixed_value(node)
            elif node.op == "call_module":
                self._module(node, self._traced.get_submodule(str(node.target)))
            elif node.op in ("call_function", "call_method"):
                self._call(node)
        return self._coupling()

    def _coupling(self) -> Coupling:
        spaces = self._spaces
        roots = sorted({spaces.find(s) for s in range(len(spaces.sizes))})
        free = [root for root in roots if not spaces.is_fixed(root) and spaces.slots[root]]
        number = {root: place for place, root in enumerate(free)}
        layers = [
            Layer(
                name,
                flops,
                None if before is None else number.get(spaces.find(before)),
                number.get(spaces.find(after)),
            )
            for name, flops, before, after in self._layers
        ]
        found = (Space(spaces.sizes[r], tuple(dict.fromkeys(spaces.slots[r]))) for r in free)
        return Coupling(tuple(found), tuple(layers))

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        value = self._input(node)
        name = str(node.target)
        before = [] if value is None else [value.space]
        if isinstance(module, (_ConvNd, nn.Linear)):
            self._layer(node, name, module, value)
        elif isinstance(module, _BatchNorm) and value is not None and module.affine:
            for tensor in ("weight", "bias", "running_mean", "running_var"):
                if getattr(module, tensor) is not None:
                    self._slot(value, name, tensor, 0, NORMALISED)
            self._values[node] = value
        elif isinstance(module, self._passing) and value is not None and _keeps(node):
            self._values[node] = value
        elif isinstance(module, nn.Flatten) and value is not None:
            self._reshape(node, value)
        else:
            self._unknown(node)
        after = [self._values[node].space] if node in self._values else []
        self._check_sharing(module, [*before, *after])

    def _check_sharing(self, module: nn.Module, spaces: list[int]) -> None:
        """What is used twice, or tied, keeps its shape."""
        before = self._seen.setdefault(id(module), [])
        tied = any(id(p) in self._tied for p in module.parameters())
        own = next(module.parameters(), None) is not None
        if own and (before or tied):
            for space in [*before, *spaces]:
                self._spaces.fix(space)
        before += spaces

    def _layer(
        self, node: fx.Node, name: str, module: _ConvNd | nn.Linear, value: _Value | None
    ) -> None:
        shape = _shape(node)
        width = module.weight.shape[0]
        is_plain = value is not None and not getattr(module, "transposed", False)
        if isinstance(module, nn.Linear):
            is_plain = is_plain and len(shape) == 2
            groups = 1
        else:
            groups = module.groups
            is_plain = is_plain and groups in (1, width)
        if value is None or not is_plain:
            self._unknown(node)
            return
        flops = 2 * module.weight.numel() * int(torch.Size(shape[2:]).numel())
        if groups == 1:
            self._slot(value, name, "weight", 1, CONSUMED)
            after = _Value(self._spaces.new(width), 1)
            self._layers.append((name, flops, value.space, after.space))
        elif module.weight.shape[1] == 1 and width == self._spaces.sizes[value.space]:
            after = value  # depthwise: each channel on its own
            self._layers.append((name, flops, None, after.space))
        else:
            self._unknown(node)
            return
        for tensor in ("weight", "bias"):
            if getattr(module, tensor) is not None:
                self._slot(after, name, tensor, 0, PRODUCED)
        self._values[node] = after

    def _call(self, node: fx.Node) -> None:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        value = self._input(node)
        if "tensor_meta" not in node.meta or node.target is getattr:
            return  # a number, such as a size
        passes = name in _PASSING_CALLS or node.target in _POOLS
        others = [a for a in node.args[1:] if isinstance(a, fx.Node) and "tensor_meta" in a.meta]
        if value is not None and passes and _keeps(node):
            self._values[node] = value
        elif value is not None and name in _RESHAPES:
            self._reshape(node, value)
        elif value is not None and name == "mean" and _keeps(node):
            self._values[node] = value
        elif name in _SUMS | _PRODUCTS and len(others) == 1:
            self._two(node, value, others[0])
        elif value is not None and name in _PRODUCTS and node.target is not operator.truediv:
            self._values[node] = value  # times a number
        else:
            self._unknown(node)

    def _two(self, node: fx.Node, value: _Value | None, other: fx.Node) -> None:
        """A sum or product of two: channels of both are one."""
        name = node.target if isinstance(node.target, str) else node.target.__name__
        second = self._values.get(other)
        first = node.args[0]
        same = isinstance(first, fx.Node) and _shape(first) == _shape(other)
        known = value is not None and second is not None and value.repeat == second.repeat
        if not (same and known) or "div" in name:
            self._unknown(node)
            return
        assert value is not None
        assert second is not None
        self._spaces.join(value.space, second.space)
        self._values[node] = value

    def _reshape(self, node: fx.Node, value: _Value) -> None:
        """Flattening all axes behind the first keeps channels together."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        before, after = _shape(source), _shape(node)
        if len(after) == 2 and after[0] == before[0]:
            self._values[node] = _Value(
                value.space, value.repeat * int(torch.Size(before[2:]).numel())
            )
        else:
            self._unknown(node)

    def _unknown(self, node: fx.Node) -> None:
        self._fix_inputs(node)
        self._fixed_value(node)

    def _fix_inputs(self, node: fx.Node) -> None:
        for source in node.all_input_nodes:
            if source in self._values:
                self._spaces.fix(self._values[source].space)

    def _fixed_value(self, node: fx.Node) -> None:
        shape = _shape(node)
        if len(shape) >= 2:
            self._values[node] = _Value(self._spaces.new(shape[1], fixed=True), 1)

    def _input(self, node: fx.Node) -> _Value | None:
        source = node.args[0] if node.args else None
        return self._values.get(source) if isinstance(source, fx.Node) else None

    def _slot(self, value: _Value, module: str, tensor: str, axis: int, role: str) -> None:
        root = self._spaces.find(value.space)
        self._spaces.slots[root].append(Slot(module, tensor, axis, value.repeat, role))


def _shape(node: fx.Node) -> tuple[int, ...]:
    meta: Any = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else ()


def _keeps(node: fx.Node) -> bool:
    """Whether samples and channels stay what they were."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return _shape(source)[:2] == _shape(node)[:2]


def couple(
    model: nn.Module, example: torch.Tensor, passing: tuple[type[nn.Module], ...] = ()
) -> Coupling:
    """The spaces of a network.

    Args:
        model: computes something from one tensor; it is only looked at.
        example: what it takes, shape (n, ...).
        passing: further modules that leave each number what it is, or make it 0.

    Raises:
        UsageError: if torch.fx cannot trace the model.
    """
    was_training = model.training
    model.eval()
    try:
        traced = fx.GraphModule(model, _Tracer().trace(model))
        with torch.no_grad():
            ShapeProp(traced).propagate(example)
    except Exception as error:
        raise UsageError(
            f"torch.fx cannot trace the model ({str(error).splitlines()[0]})",
            where="compress",
            hint="write its forward without branches on values, or prune weights, not channels",
        ) from error
    finally:
        model.train(was_training)
    return _Walk(traced, passing).run()
