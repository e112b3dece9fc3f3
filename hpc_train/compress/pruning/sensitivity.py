"""Each layer loses as much as it can bear: what it can bear is measured, layer by layer.

    scan       loss when this layer alone is pruned to ...        allotted, 0.8 of all weights
    layer      dense   0.50   0.75   0.90   0.95   0.99
    conv       0.031   0.035  0.120  0.900  1.9    2.3            0.61
    hidden     0.031   0.031  0.032  0.035  0.06   0.8            0.92

Han et al., "Learning both weights and connections", NeurIPS 2015, section 3 and figure 6; Li et
al., "Pruning filters for efficient convnets", ICLR 2017, section 3.2, measure layers like this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any

import torch

from hpc_train.compress.pruning.magnitude import smallest
from hpc_train.errors import HpcTrainError

RATIOS = (0.5, 0.75, 0.9, 0.95, 0.99)  # of a layer's weights

# the loss with these masks on, of some layers; weights are as before afterwards
Trial = Callable[[Mapping[str, torch.Tensor]], float]


@dataclass(frozen=True)
class Scan:
    """What the loss is when one layer alone is pruned.

    Attributes:
        dense: the loss with all weights.
        losses: by layer, one for each of `RATIOS`.
        sizes: how many weights each layer has.
    """

    dense: float
    losses: dict[str, tuple[float, ...]]
    sizes: dict[str, int]

    def json(self) -> dict[str, Any]:
        """As a document."""
        losses = {name: list(own) for name, own in self.losses.items()}
        return {"dense": self.dense, "losses": losses, "sizes": self.sizes}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Scan:
        """What `json` told."""
        losses = {name: tuple(own) for name, own in document["losses"].items()}
        return cls(document["dense"], losses, dict(document["sizes"]))

    def allot(self, amount: float) -> dict[str, float]:
        """Which part of each layer goes, so that `amount` of all goes and the loss grows least.

        The growth of a layer's loss is taken as linear between two ratios, as convex (its lower
        hull), and growths of several layers as their sum. So the best is found by giving to the
        layer whose next weights cost least, again and again; those of equal costs go alike.

        Args:
            amount: in (0, 1); no layer loses more than the largest of `RATIOS`.
        """
        ratios = dict.fromkeys(self.sizes, 0.0)
        left = amount * sum(self.sizes.values())
        pieces = [
            (cost, name, start, stop)
            for name, size in self.sizes.items()
            for cost, start, stop in _hull(self._growth(name), size)
        ]
        pieces.sort(key=lambda piece: piece[0])
        for _, alike in groupby(pieces, lambda piece: piece[0]):
            same = list(alike)
            room = sum((stop - start) * self.sizes[name] for _, name, start, stop in same)
            share = min(1.0, left / room)
            for _, name, start, stop in same:
                ratios[name] = start + share * (stop - start)
            if share < 1.0:  # what rounding leaves over would give a next piece all before it
                break
            left = max(0.0, left - room)
        return ratios

    def rows(self, amount: float) -> list[list[str]]:
        """A table for people."""
        allotted = self.allot(amount)
        head = ["loss when pruned alone", "weights", "0", *(f"{r:g}" for r in RATIOS), "allotted"]
        return [
            head,
            *(
                [name, f"{self.sizes[name]:,}", f"{self.dense:.4g}"]
                + [f"{loss:.4g}" for loss in self.losses[name]]
                + [f"{allotted[name]:.3f}"]
                for name in self.sizes
            ),
        ]

    def _growth(self, name: str) -> list[tuple[float, float]]:
        """(ratio, by which part of itself the loss grows), from (0, 0) on, never falling.

        Rounded, so that sums over other numbers of ranks give the same.
        """
        scale = max(abs(self.dense), 1e-12)
        found, most = [(0.0, 0.0)], 0.0
        for ratio, loss in zip(RATIOS, self.losses[name], strict=True):
            most = max(most, round((loss - self.dense) / scale, 6))
            found.append((ratio, most))
        return found


def _hull(points: Sequence[tuple[float, float]], size: int) -> list[tuple[float, float, float]]:
    """(growth per weight, start, stop) of the lower convex hull of points, by ratio."""
    hull: list[tuple[float, float]] = []
    for point in points:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], point):
            hull.pop()
        hull.append(point)
    return [(_slope(one, other) / size, one[0], other[0]) for one, other in pairwise(hull)]


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])


class Sensitivity:
    """Zeroes the smallest weights of each layer, of each as many as its scan allots to it.

    Args:
        weights: by name; read whenever masks are made.
        amount: in (0, 1), of all weights.

    Attributes:
        table: what was measured; None before `scan`.
        amount: as above.
    """

    wants_gradients = False

    def __init__(self, weights: Mapping[str, torch.Tensor], amount: float) -> None:
        self.names = tuple(weights)
        self.amount = amount
        self.table: Scan | None = None
        self._weights = weights

    def scan(self, trial: Trial) -> Scan:
        """Measure each layer: `trial` is called in the same order with the same masks everywhere.

        Raises:
            HpcTrainError: if a loss is not finite.
        """
        dense = trial({})
        losses = {}
        for name, weights in self._weights.items():
            whole = torch.ones_like(weights, dtype=torch.bool)
            own = [trial(_smallest(name, weights, whole, ratio)) for ratio in RATIOS]
            losses[name] = tuple(own)
        told = [dense, *(loss for own in losses.values() for loss in own)]
        if not torch.tensor(told).isfinite().all():
            raise HpcTrainError(
                "the loss must be finite to measure how sensitive layers are",
                where="compress.prune",
                hint='prune later (compress.begin), or by "magnitude"',
            )
        sizes = {name: weights.numel() for name, weights in self._weights.items()}
        self.table = Scan(dense, losses, sizes)
        return self.table

    def masks(
        self, masks: Mapping[str, torch.Tensor], squares: Mapping[str, torch.Tensor], part: float
    ) -> dict[str, torch.Tensor]:
        """See `Pruner`; after `scan`."""
        if self.table is None:
            raise HpcTrainError("layers must be measured before they are pruned", where="scan")
        found: dict[str, torch.Tensor] = {}
        for name, ratio in self.table.allot(self.amount).items():
            found |= _smallest(name, self._weights[name], masks[name], ratio * part)
        return found


def _smallest(
    name: str, weights: torch.Tensor, mask: torch.Tensor, ratio: float
) -> dict[str, torch.Tensor]:
    return smallest({name: weights.abs()}, {name: mask}, ratio)
