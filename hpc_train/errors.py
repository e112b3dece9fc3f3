"""The errors that users can cause: one line each, with a remedy and an exit code.

A message states the rule, then the value, in lower case and without a full stop. `hint` is the
remedy, `where` the place (file and line, key, rank and host). Everything else that is raised is a
bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_ENVIRONMENT = 3
EXIT_REQUEUE = 75
EXIT_INTERRUPTED = 130


class HpcTrainError(Exception):
    """A run that failed for a reason that its user can understand and mend.

    Attributes:
        exit_code: what the command line leaves with.
        agreed: whether every rank raises it at the same point, so that all can leave together.
    """

    exit_code = EXIT_FAILED
    agreed = False

    def __init__(self, message: str, *, hint: str | None = None, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def lines(self) -> list[str]:
        """The lines to print: `where: message`, then the hint."""
        place = f"{self.where}: " if self.where else ""
        text = [f"{place}{self.message}"]
        if self.hint:
            text.append(f"hint: {self.hint}")
        return text

    def __str__(self) -> str:
        return "\n".join(self.lines())


class ConfigError(HpcTrainError):
    """The configuration asks for something that is not allowed; holds every mistake found."""

    exit_code = EXIT_USAGE

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        where: str | None = None,
        problems: Sequence[HpcTrainError] = (),
    ) -> None:
        super().__init__(message, hint=hint, where=where)
        self.problems = tuple(problems)

    def lines(self) -> list[str]:
        if not self.problems:
            return super().lines()
        return [line for problem in self.problems for line in problem.lines()]


class UsageError(HpcTrainError):
    """A command was called in a way that it does not understand."""

    exit_code = EXIT_USAGE


class DataError(HpcTrainError):
    """Data are missing, damaged or not what their index or the task promises."""


class SetupError(HpcTrainError):
    """The machine lacks something: an MPI, a launcher that fits it, a device, a package."""

    exit_code = EXIT_ENVIRONMENT


class CommunicationError(HpcTrainError):
    """Another rank was not heard of in time."""


class CheckpointError(HpcTrainError):
    """No checkpoint can be read, or one cannot be written."""


class NonFiniteError(HpcTrainError):
    """The loss or the gradient is not finite and the configuration says to stop."""


class PeerError(HpcTrainError):
    """Another rank failed in the middle of a step that ranks make together; it says why itself."""


class LostRanksError(HpcTrainError):
    """Too few ranks are left; the state is saved, and the run wants to be started again."""

    exit_code = EXIT_REQUEUE
    agreed = True


class LostStateError(LostRanksError):
    """Nobody who is left holds the newest state: the run wants to begin at its last checkpoint."""


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None if none is near (difflib's ratio >= 0.6)."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return found[0] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """One line for an unknown name: the known ones and the nearest of them."""
    names = sorted(known)
    like = nearest(name, names)
    question = f"; did you mean {like!r}?" if like else ""
    return f'unknown {what} "{name}", known: {", ".join(names)}{question}'
