"""Leaving: how a rank's end is told from one without a word.

Where the MPI lets the others live on, it tells them of a rank that a signal has ended, and of no
other: one whose process ends by `_exit`, as some C libraries do, would be waited for, for ever. So
each rank has a shell above it. A file is there from when the rank has met the others until it takes
its leave; where it is still there when the process has ended, the shell ends by a signal, and by
the same signal where one has ended the process (130 is an exit code of the package's own). The
name is new each time: nodes may share the folder, and processes of others may have left files.
"""

from __future__ import annotations

import atexit
import contextlib
import os
from pathlib import Path

FILE = "HPC_TRAIN_PRESENT"  # the variable that names the file
_SCRIPT = f"""\
trap '' USR1
{FILE}=$(mktemp "${{TMPDIR:-/tmp}}/hpc_train-present.XXXXXX" 2>/dev/null); export {FILE}
rm -f "${FILE}"
trap 'rm -f "${FILE}"; trap - TERM; kill -TERM $$' TERM
trap 'rm -f "${FILE}"; trap - HUP; kill -HUP $$' HUP
exec 3>&2 2>/dev/null
(exec "$@" 2>&3 3>&-)
code=$?
if [ $code -gt 128 ] && [ $code -ne 130 ]; then rm -f "${FILE}"; kill -$((code - 128)) $$; fi
if [ ! -e "${FILE}" ]; then exit $code; fi
rm -f "${FILE}"
kill -9 $$
"""
# before the command line of a rank
GUARD = ("sh", "-c", _SCRIPT, "sh")


def arrive() -> None:
    """Say that this process must not end without a word from now on.

    It takes leave by itself when the interpreter ends in good order.
    """
    path = os.environ.get(FILE)
    if not path:
        return
    with contextlib.suppress(OSError):  # of a full disk: then there is no guard
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        atexit.register(take_leave)


def take_leave() -> None:
    """Say that this process ends on purpose, whatever its exit code."""
    path = os.environ.get(FILE)
    if path:
        Path(path).unlink(missing_ok=True)
