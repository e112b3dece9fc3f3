"""Which sets are kept: the last ones, and the one with the best metric; pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

METRICS = "metrics"  # the key of the notes that tells what was evaluated just before the save


@dataclass(frozen=True)
class Best:
    """What makes one set better than another: the largest or smallest value of a metric.

    Attributes:
        metric: its name, such as "accuracy" or "loss", of the validation data.
        largest: whether more is better.
    """

    metric: str
    largest: bool

    @classmethod
    def parse(cls, text: str) -> Best:
        """What "max accuracy" or "min loss" says.

        Raises:
            ValueError: if the text is neither.
        """
        kind, _, metric = text.partition(" ")
        if kind not in ("max", "min") or not metric:
            raise ValueError(f'best must read "max METRIC" or "min METRIC" (value: "{text}")')
        return cls(metric, kind == "max")

    def value(self, notes: Mapping[str, Any]) -> float | None:
        """The value that the notes of a set tell; None if it was saved without an evaluation."""
        found = notes.get(METRICS, {}).get(self.metric)
        return None if found is None or math.isnan(found) else float(found)

    def beats(self, value: float | None, other: float | None) -> bool:
        """Whether `value` is better than `other`; any value is better than none."""
        if value is None or math.isnan(value):
            return False
        if other is None:
            return True
        return value > other if self.largest else value < other


def kept(values: Mapping[int, float | None], keep_last: int, best: Best | None) -> set[int]:
    """The steps of the sets that are kept: the last `keep_last`, and the first of the best.

    Args:
        values: the metric of each set by its step, None where it is not known.
        keep_last: how many of the last, >= 1.
        best: what is best; None to keep the last ones only.
    """
    steps = sorted(values)
    found = set(steps[-keep_last:])
    if best is not None:
        top: int | None = None
        for step in steps:
            if best.beats(values[step], None if top is None else values[top]):
                top = step
        found |= set() if top is None else {top}
    return found
