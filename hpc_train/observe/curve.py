"""A curve over global batches, as a line of text and as a picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hpc_train.errors import HpcTrainError, SetupError, UsageError

_BARS = "▁▂▃▄▅▆▇█"
_PLAIN_BARS = "_.-~=+*#"  # for terminals without the others
_SUFFIXES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Curve:
    """Values at some global batches, of which the first and the last are the run's."""

    batches: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def sample(cls, function: Callable[[int], float], length: int, most: int = 2000) -> Curve:
        """At most `most` values of a function of the batches [0, length), evenly spread."""
        count = min(length, most)
        last = max(1, count - 1)
        batches = tuple((length - 1) * place // last for place in range(count))
        return cls(batches, tuple(map(function, batches)))


def sparkline(values: Sequence[float], width: int = 60, encoding: str | None = "utf-8") -> str:
    """At most `width` bars from 0 to the largest value, each the largest of its part.

    Args:
        values: each >= 0, at least one.
        width: characters.
        encoding: of where it is shown; None if it is not known.
    """
    bars = _BARS if _can_show(_BARS, encoding) else _PLAIN_BARS
    count = min(width, len(values))
    cuts = [len(values) * place // count for place in range(count + 1)]
    parts = [max(values[a:b]) for a, b in pairwise(cuts)]
    top = max(parts)
    last = len(bars) - 1
    return "".join(bars[round(part / top * last) if top else 0] for part in parts)


def _can_show(text: str, encoding: str | None) -> bool:
    try:
        text.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def check_picture(path: Path) -> None:
    """Check that a picture can be drawn into `path`.

    Raises:
        SetupError: naming the extra to install.
        UsageError: if the name of the file does not tell a format that is known.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"a plot's name must end with {', '.join(_SUFFIXES[:-1])} or {_SUFFIXES[-1]} ({path})",
            where="--plot",
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise SetupError(
            f"plots need matplotlib ({error})", hint="pip install 'hpc-train[plot]'"
        ) from error


def draw(curve: Curve, path: Path, *, title: str, label: str) -> None:
    """Draw a curve over batches into a file; see `check_picture`.

    Raises:
        HpcTrainError: if it cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.batches, curve.values, color="#0072B2", linewidth=1.8)
    axes.set_xlabel("global batch")
    axes.set_ylabel(label)
    axes.set_title(title, fontsize=10)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise HpcTrainError(f"cannot write the plot: {error.strerror}", where=str(path)) from error
