"""Which collective is used, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """Which collective is used, and why.

    Attributes:
        name: in `COLLECTIVES`.
        reason: for people.
        day: when that was measured, if it is remembered.
    """

    name: str
    reason: str
    day: str = ""
