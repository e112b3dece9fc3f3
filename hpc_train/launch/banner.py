"""Takes the launcher's banners out of a stream, and the facts in them.

Open MPI and MPICH frame what they say about the end of a job by rules. `-----` and `=====` stand
for long ones here:

    -----                                                             <- held back from here on
    prterun noticed that process rank 1 with PID 4342 on node n7 ...  <- a known opening: swallowed
    -----                                                             <- until the closing rule

A rule with any other text behind it is passed on as it is: ranks print rules, too, and launchers
have things to say that users must read (too few slots, a missing program).
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass

_RULE = re.compile(rb"(-{70,80}|={40,90})\r?\n?")
_OPENING = re.compile(
    rb"(prterun|mpirun|mpiexec|orterun) (detected|noticed) that (one or more|process rank)"
    rb"|(prterun|mpirun|mpiexec|orterun) has exited due to"
    rb"|MPI_ABORT was invoked on rank"
    rb"|Primary job +terminated normally, but"
    rb"|= +BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES"
)
# What MPICH's launcher adds below its banner, without a frame.
_EPILOGUE = (
    b"YOUR APPLICATION TERMINATED WITH THE EXIT ",
    b"This typically refers to a problem with your application",
    b"Please see the FAQ page for debugging suggestions",
)
_WIDEST = 90  # characters of a rule
_LONGEST = 24  # lines: a frame that is not closed by then is none
# Open MPI tells the signal in the banner; MPICH who in the banner, and the signal below it.
_SIGNALLED = re.compile(r"process rank (\d+) with PID (\d+) on node (\S+) exited on\s+signal (\d+)")
_PLACE = re.compile(r"PID (\d+) RUNNING AT (\S+)")
_EXIT_STRING = re.compile(rb"YOUR APPLICATION TERMINATED WITH THE EXIT STRING:.*\(signal (\d+)\)")


@dataclass(frozen=True)
class Death:
    """A rank that a signal ended, as the launcher tells; Open MPI its number, MPICH its pid."""

    rank: int | None
    pid: int
    host: str
    number: int

    def __str__(self) -> str:
        try:
            name = signal.Signals(self.number).name
        except ValueError:
            name = f"signal {self.number}"
        who = "a rank" if self.rank is None else f"rank {self.rank}"
        pid = f" (pid {self.pid})" if self.pid else ""
        return f"{who} on {self.host} was killed by {name}{pid}"


class BannerFilter:
    """Passes a stream of bytes through, without delay, and without the banners in it.

    `deaths` lists the ranks that signals ended, as far as banners have told.
    """

    def __init__(self) -> None:
        self.deaths: list[Death] = []
        self._line = b""  # the beginning of a line that may yet become a rule
        self._inside = False  # of a line whose beginning has been passed on
        self._held: list[bytes] = []  # lines of what may be a banner
        self._place: tuple[int, str] | None = None  # pid and host that MPICH's banner named

    def feed(self, data: bytes) -> bytes:
        """What of the stream can be shown after `data` has arrived."""
        shown = []
        for piece in re.findall(rb"[^\n]*\n|[^\n]+", data):
            shown.append(self._piece(piece))
        return b"".join(shown)

    def flush(self) -> bytes:
        """What is held back, once the stream has ended or paused: launchers print at one go."""
        rest = b"".join([*self._held, self._line])
        self._inside = self._inside or bool(self._line)
        self._held, self._line = [], b""
        return rest

    def _piece(self, piece: bytes) -> bytes:
        """Take a line, or a part of one."""
        ended = piece.endswith(b"\n")
        if self._inside and not _RULE.fullmatch(piece):
            self._inside = not ended
            return piece
        self._inside = False
        line = (self._line + piece).lstrip(b"\0")  # Open MPI ends its output with a zero byte
        if ended:
            self._line = b""
            return self._whole(line)
        if self._held or self._may_matter(line):
            self._line = line
            return b""
        self._line = b""
        self._inside = True
        return line

    def _whole(self, line: bytes) -> bytes:
        """Take a whole line."""
        rule = _RULE.fullmatch(line) is not None
        held = self._held
        if not held:
            if rule:
                self._held = [line]
                return b""
            if not (self._place and line.startswith(_EPILOGUE)):
                return line
            self._below(line)
            return b""
        if len(held) == 1 and rule:
            self._held = [line]
            return held[0]
        if len(held) == 1 and not _OPENING.match(line):
            self._held = []
            return held[0] + line
        held.append(line)
        if rule and line[:1] == held[0][:1]:
            self._held = []
            self._understand(b"".join(held))
        elif len(held) > _LONGEST:
            self._held = []
            return b"".join(held)
        return b""

    def _understand(self, banner: bytes) -> None:
        """Keep the fact that a banner holds."""
        text = banner.decode(errors="replace")
        if match := _SIGNALLED.search(text):
            rank, pid, host, number = match.groups()
            self.deaths.append(Death(int(rank), int(pid), host, int(number)))
        if match := _PLACE.search(text):
            self._place = (int(match[1]), match[2])

    def _below(self, line: bytes) -> None:
        """Keep the fact in a line below MPICH's banner."""
        match = _EXIT_STRING.match(line)
        if match and self._place:
            self.deaths.append(Death(None, *self._place, int(match[1])))

    def _may_matter(self, line: bytes) -> bool:
        """Whether the beginning of a line may become a rule, or a line below MPICH's banner."""
        if not line.strip(b"-") or not line.strip(b"="):
            return len(line) <= _WIDEST
        return self._place is not None and any(
            line.startswith(text) or text.startswith(line) for text in _EPILOGUE
        )
