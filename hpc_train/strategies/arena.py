"""Arenas: parameters and gradients as views of flat buffers, which collectives read in place.

data   | weight 0      |..| bias 0 |....| weight 1            |      .. padding to 64 bytes
grad   | weight 0.grad |..| ...
piece  | of one parameter group         | of another          |      what the optimizer gets
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import torch
from torch import nn

from hpc_train.errors import UsageError

logger = logging.getLogger(__name__)

_ALIGN_BYTES = 64  # a cache line, and what vectorised kernels like
# larger gradients are copied when autograd has made them, and not added to zeros
_LARGE_BYTES = 128 * 2**10


class Once(Protocol):
    """Lets one rank of a node do something, while the others wait; collective among them."""

    def __call__(self, act: Callable[[], None], *, alone: bool = False) -> None:
        """`alone`: each does it by itself, since something failed; all do the same."""


@dataclass(frozen=True, eq=False)
class Piece:
    """A part of an arena that an optimizer treats alike.

    Attributes:
        names: the parameters in it, one behind the other.
        start, stop: where it lies in the arena.
        flat: its values and gradients as one parameter, shape (stop - start,).
    """

    names: tuple[str, ...]
    start: int
    stop: int
    flat: nn.Parameter


class Arena:
    """The parameters of one dtype and device, flat.

    Args:
        named: the parameters, by name.
        group: what neighbours must have in common to lie in one piece; None for one piece of all.

    Attributes:
        data: values of all parameters, shape (n,).
        grad: their gradients, shape (n,); only a strategy may zero it.
        pieces: both, for an optimizer.
        places: where each parameter lies, name -> (offset, shape).
        named: the parameters, by name.
        shared: whether the values lie in memory that other ranks have, too.
        frozen: those that are not to change for now.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        group: Callable[[str], Hashable] = lambda name: None,
    ) -> None:
        self.named = list(named)
        first = self.named[0][1]
        align = _ALIGN_BYTES // first.element_size()
        self.places: dict[str, tuple[int, torch.Size]] = {}
        end = 0
        for name, parameter in self.named:
            self.places[name] = (end, parameter.shape)
            end += -(-parameter.numel() // align) * align
        self.data = torch.zeros(end, dtype=first.dtype, device=first.device)
        self.grad = torch.zeros_like(self.data)
        self.pieces = self._cut(group)
        self._views = self._make_views()
        self._own_grad: torch.Tensor | None = None  # while `grad` is a sum that lies elsewhere
        self._expected: set[int] = set()  # gradients that autograd makes anew, by number
        self._large: list[int] = []
        self._small: list[slice] = []
        self._sort()
        self._warned = False
        self.frozen: set[str] = set()
        self._once: Once = _each
        with torch.no_grad():
            for parameter, data, grad in self._views:
                data.copy_(parameter)
                parameter.data = data
                # a view object of its own: `Module.to` moves the very tensor that `.grad` is
                parameter.grad = grad.detach()

    def _sort(self) -> None:
        """Which gradients are large; where the others are, as few slices as possible."""
        size = self.data.element_size()
        start = 0
        for number, (name, parameter) in enumerate(self.named):
            if parameter.numel() * size < _LARGE_BYTES:
                continue
            self._large.append(number)
            parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                partial(self._land, number)
            )
            begin = self.places[name][0]
            self._small.append(slice(start, begin))
            start = begin + parameter.numel()
        self._small = [
            at for at in (*self._small, slice(start, len(self.data))) if at.stop > at.start
        ]

    @property
    def shared(self) -> bool:
        return self._once is not _each

    def share(self, memory: torch.Tensor, once: Once) -> None:
        """Let the values lie in memory that the ranks of a node have in common; collective.

        Those of the rank that `once` chooses are taken; all change with every update from now on,
        and `write` acts through `once`.

        Args:
            memory: shape (n,), on the CPU.
            once: lets one of the ranks act.
        """
        own = self.data
        self.data, self._once = memory, once
        self.write(lambda data: data.copy_(own))  # type: ignore[arg-type]
        self._take_up()

    def part(self) -> None:
        """Give this rank values of its own again; what others do is of no matter from here on."""
        if not self.shared:
            return
        self.data, self._once = self.data.clone(), _each
        self._take_up()

    def _take_up(self) -> None:
        """Let all parameters be views of `data`."""
        for piece in self.pieces:
            piece.flat.data = self.data[piece.start : piece.stop]
        self._views = self._make_views()
        for parameter, data, _ in self._views:
            parameter.data = data

    @contextmanager
    def lend(self, values: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """Let parameters have other values for a while, on this rank alone; `data` stays.

        Args:
            values: of some parameters, by name, in their shapes; names of others are left out.
        """
        lent = [
            (parameter, view, values[name])
            for (name, parameter), (_, view, _) in zip(self.named, self._views, strict=True)
            if name in values
        ]
        try:
            for parameter, _, value in lent:
                parameter.data = value
            yield
        finally:
            for parameter, view, _ in lent:
                parameter.data = view

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is a part of `data`."""
        return tensor.untyped_storage().data_ptr() == self.data.untyped_storage().data_ptr()

    def move_gradients(self, allocate: Callable[[int, torch.dtype], torch.Tensor]) -> None:
        """Let the gradients lie in other memory, such as what the ranks of a node share.

        Those on a device stay where they are.

        Args:
            allocate: gives memory on the CPU for a number of elements of a type, shape (n,).
        """
        if self.grad.device.type != "cpu":
            return
        self.take_back()
        moved = allocate(self.grad.numel(), self.grad.dtype)
        moved.copy_(self.grad)
        self.grad = moved
        for piece in self.pieces:
            piece.flat.grad = moved[piece.start : piece.stop]
        self._views = self._make_views()
        for parameter, _, grad in self._views:
            parameter.grad = grad.detach()

    def read(self, total: torch.Tensor) -> None:
        """Let `grad` be a sum that lies elsewhere, until `take_back`.

        Args:
            total: shape (n,); nobody may write to it meanwhile.
        """
        if total.data_ptr() != self.grad.data_ptr():
            self._own_grad = self.grad
            self._point(total)

    def take_back(self) -> None:
        """Let `grad` be this rank's own again, if it is not."""
        if self._own_grad is not None:
            own, self._own_grad = self._own_grad, None
            self._point(own)

    def _point(self, grad: torch.Tensor) -> None:
        """Let all gradients be views of `grad`, but for what is frozen."""
        self.grad = grad
        for piece in self.pieces:
            if piece.flat.grad is not None:
                piece.flat.grad = grad[piece.start : piece.stop]
        for name, parameter in self.named:
            parameter.grad = self.view(grad, name).detach()

    @property
    def flat(self) -> nn.Parameter:
        """The only piece, all of the arena, as one parameter."""
        (piece,) = self.pieces
        return piece.flat

    def _cut(self, group: Callable[[str], Hashable]) -> list[Piece]:
        """Neighbours of the same group, padding included, as pieces."""
        runs = [tuple(names) for _, names in groupby(self.places, group)]
        starts = [self.places[names[0]][0] for names in runs]
        pieces = []
        for names, start, stop in zip(runs, starts, [*starts[1:], len(self.data)], strict=True):
            flat = nn.Parameter(self.data[start:stop])
            flat.grad = self.grad[start:stop]
            pieces.append(Piece(names, start, stop, flat))
        return pieces

    def _make_views(self) -> list[tuple[nn.Parameter, torch.Tensor, torch.Tensor]]:
        """(parameter, its part of data, its part of grad) for each of them."""
        return [
            (parameter, self.view(self.data, name), self.view(self.grad, name))
            for name, parameter in self.named
        ]

    def view(self, flat: torch.Tensor, name: str) -> torch.Tensor:
        """The part of a tensor like `data` that belongs to one parameter, in its shape."""
        return self._view(flat, name, 0)

    def view_of(self, piece: Piece, flat: torch.Tensor, name: str) -> torch.Tensor:
        """The part of a tensor like `piece.flat` that belongs to one parameter, in its shape."""
        return self._view(flat, name, piece.start)

    def _view(self, flat: torch.Tensor, name: str, start: int) -> torch.Tensor:
        offset, shape = self.places[name]
        offset -= start
        return flat[offset : offset + shape.numel()].view(shape)

    def trained(self) -> list[tuple[str, torch.Size]]:
        """Names and shapes of the parameters that are not frozen."""
        return [(n, shape) for n, (_, shape) in self.places.items() if n not in self.frozen]

    def begin(self) -> None:
        """Get ready for the gradients of a step; until `gather`, those that are missing are stale.

        Small ones become zero, and are added to. Large ones are dropped: to copy what autograd
        makes, while it is in the cache, takes half of the memory traffic of zeroing and adding.
        """
        for at in self._small:
            self.grad[at].zero_()
        for number in self._large:
            self._views[number][0].grad = None
        self._expected.update(self._large)

    def _land(self, number: int, parameter: torch.Tensor) -> None:
        """Called by autograd when it has added to a large gradient."""
        if number in self._expected and parameter.grad is not None:
            self._expected.remove(number)
            grad = self._views[number][2]
            grad.copy_(parameter.grad.detach())
            parameter.grad = grad.detach()

    def zero(self) -> None:
        """Set the gradient to zero."""
        self._expected.clear()
        self.grad.zero_()
        for number in self._large:
            parameter, _, grad = self._views[number]
            parameter.grad = grad.detach()

    def write(self, function: Callable[[torch.Tensor], None], *, alone: bool = False) -> None:
        """Change parameters other than by the update: `function` gets `data`.

        Where several ranks have it in common, this is collective, and one of them does it.

        Args:
            function: called at most once.
            alone: after a failure: every rank that comes here does it, without waiting for others,
                who write the same or nothing.
        """

        def act() -> None:
            with torch.no_grad():
                function(self.data)

        self._once(act, alone=alone)

    def gather(self) -> None:
        """Bring back data and gradients that torch moved out of the arena; warn once.

        `zero_grad()` drops gradients, `.to(memory_format=...)` moves weights and
        `backward(create_graph=True)` gradients.
        """
        self._expected.clear()
        for parameter, data, grad in self._views:
            if parameter.grad is not None and parameter.grad.is_sparse:
                raise UsageError(
                    "gradients must be dense (a sparse one was found)",
                    hint="build embeddings with sparse=False",
                )
            if parameter.data_ptr() != data.data_ptr():
                self._restore(parameter, data, "weights")
            if parameter.grad is None:
                grad.zero_()
                parameter.grad = grad.detach()
            elif parameter.grad.data_ptr() != grad.data_ptr():
                with torch.no_grad():
                    grad.copy_(parameter.grad)
                self._note("gradients")
                parameter.grad = grad.detach()

    def _restore(self, parameter: nn.Parameter, data: torch.Tensor, what: str) -> None:
        with torch.no_grad():
            data.copy_(parameter)
        parameter.data = data
        self._note(what)

    def _note(self, what: str) -> None:
        if not self._warned:
            logger.warning("%s were moved out of their flat buffer; copied back each step", what)
            self._warned = True


def _each(act: Callable[[], None], *, alone: bool = False) -> None:
    """Every rank has its own."""
    act()


def assign(
    arenas: Sequence[Arena],
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]],
    *,
    alone: bool = False,
) -> None:
    """Set each first tensor to the second one; through `write`, where it lies in an arena.

    Args:
        arenas: where parameters may lie.
        pairs: (tensor, value) of one shape each.
        alone: see `Arena.write`.
    """
    for arena in arenas:
        own = [pair for pair in pairs if arena.holds(pair[0])]
        if own:
            arena.write(lambda data, own=own: _copy(own), alone=alone)  # type: ignore[misc]
    with torch.no_grad():
        _copy([pair for pair in pairs if not any(arena.holds(pair[0]) for arena in arenas)])


def _copy(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> None:
    for tensor, value in pairs:
        tensor.copy_(value)


def make_arenas(
    named: Iterable[tuple[str, nn.Parameter]],
    group: Callable[[str], Hashable] = lambda name: None,
) -> list[Arena]:
    """One arena for each dtype and device among the parameters that want a gradient.

    Args:
        named: the parameters; tied weights come once, under the first of their names.
        group: what neighbours must have in common to lie in one piece of an arena.
    """
    groups: dict[tuple[torch.dtype, torch.device], list[tuple[str, nn.Parameter]]] = {}
    seen: set[int] = set()
    for name, parameter in named:
        if parameter.requires_grad and id(parameter) not in seen:
            seen.add(id(parameter))
            groups.setdefault((parameter.dtype, parameter.device), []).append((name, parameter))
    return [Arena(members, group) for members in groups.values()]
