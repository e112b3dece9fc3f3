"""How long a phase may last before it counts as hung: learned, pure.

A phase may last `factor` times as long as it ever did (slowly forgotten), and `floor` seconds in
any case; before it was seen a few times (compiling, cold files, first use of a device), many times
the floor. The floor is what protects against machines that are busy with other things: there all
phases stretch by the same factor, as long as cores are shared, and that is a small number.
"""

from __future__ import annotations

_FACTOR = 20.0
_KNOWN = 3  # times that a phase must have been seen
_UNKNOWN_FACTOR = 10.0  # on the floor, before
_FORGETTING = 0.999


class Patience:
    """Learns from durations.

    Args:
        floor_seconds: the least limit, > 0.

    Attributes:
        limits: of the phases that are known, by name.
        unknown: that of all others.
        short_seconds: what lasts less changes nothing for those that are `settled`.
        settled: names of phases whose limit is the least one.
    """

    def __init__(self, floor_seconds: float) -> None:
        self._floor = floor_seconds
        self._longest: dict[str, float] = {}
        self._seen: dict[str, int] = {}
        self.limits: dict[str, float] = {}
        self.unknown = _UNKNOWN_FACTOR * floor_seconds
        self.short_seconds = floor_seconds / _FACTOR
        self.settled: set[str] = set()

    def learn(self, name: str, seconds: float) -> None:
        """The phase `name` lasted so long."""
        longest = _FORGETTING * self._longest.get(name, 0.0)
        self._longest[name] = longest = seconds if seconds > longest else longest
        seen = self._seen[name] = self._seen.get(name, 0) + 1
        if seen >= _KNOWN:
            limit = _FACTOR * longest
            self.limits[name] = max(limit, self._floor)
            if limit <= self._floor:
                self.settled.add(name)
            else:
                self.settled.discard(name)

    def limit(self, name: str) -> float:
        """For how many seconds it may last now."""
        return self.limits.get(name, self.unknown)
