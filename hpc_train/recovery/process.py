"""Processes of this node, as the system sees them."""

from __future__ import annotations

import os
from pathlib import Path

_SLACK_SECONDS = 2.0  # between the clocks of processes and files


def state_of(pid: int, known_since: float | None = None) -> str:
    """The state of a process: R, S, D (sleeping for a device), T (stopped), t (traced); "" if gone.

    A process that has ended and was not yet waited for (Z) is gone.

    Args:
        pid: which process.
        known_since: a date at which it was there already: a younger one of that number is another.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        if known_since is not None:
            started = os.stat(f"/proc/{pid}").st_ctime
            if started > known_since + _SLACK_SECONDS:
                return ""
    except OSError:
        return ""
    letter = stat.rpartition(")")[2].split()[0]
    return "" if letter in "ZX" else letter
