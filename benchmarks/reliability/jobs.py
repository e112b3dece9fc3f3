"""Jobs whose ranks are killed or stopped from outside, and what became of them."""

from __future__ import annotations

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from hpc_train.errors import HpcTrainError
from hpc_train.launch import launching, processes
from hpc_train.recovery.flight import Event, Flight, Tape

CONFIG = """\
[run]
name = "reliability"
epochs = {epochs}
seed = 1
evaluate = "100 steps"

[data]
train = "builtin:digits/train"
validation = "builtin:digits/test[:64]"
inputs = "image"
targets = "label"
scale = 0.0625
batch_size = 64

[model]
name = "mlp"
hidden = [{hidden}, {hidden}]
activation = "tanh"

[optimizer]
name = "sgd"
lr = 0.02
momentum = 0.5

[precision]
dtype = "float64"

[checkpoint]
every = "50 steps"
"""
LIMIT_SECONDS = 300.0  # a job that takes longer hangs
TOLERANCE = 1e-10


@dataclass
class Outcome:
    """What became of one job.

    Attributes:
        problem: "hang", "failed", "samples", "weights", or "" if all is well.
        kills: how many ranks were killed or stopped while it trained.
        recoveries: seconds from each of them to the next committed step, beyond a normal one.
        text: what it printed, if there was a problem.
    """

    problem: str = ""
    kills: int = 0
    recoveries: list[float] = field(default_factory=list)
    text: str = ""


class Job:
    """A run on `ranks` ranks, in a folder of its own."""

    def __init__(
        self,
        folder: Path,
        ranks: int,
        epochs: int,
        hidden: int,
        *extra: str,
        fault_tolerant: bool = True,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        (folder / "c.toml").write_text(CONFIG.format(epochs=epochs, hidden=hidden))
        self.run = folder / "run"
        program = [sys.executable, "-m", "hpc_train", "run", str(folder / "c.toml")]
        program += [f"run.dir={self.run}", *extra]
        self._started = ExitStack()
        call = self._started.enter_context(
            launching(program, ranks, fault_tolerant=fault_tolerant and ranks > 1)
        )
        self._output = (folder / "output").open("w+")
        self._token = folder.name
        environ = {**call.environ, "OMP_NUM_THREADS": "1", **(environ or {})}
        environ[processes.JOB] = self._token
        environ.pop("PYTHONDONTWRITEBYTECODE", None)  # installed packages have theirs
        self.process = subprocess.Popen(
            call.argv,
            env=environ,
            stdout=self._output,
            stderr=self._output,
            start_new_session=True,
        )

    def tapes(self) -> dict[int, Tape]:
        """The flight records of all ranks, once they are there."""
        found = {}
        for path in sorted((self.run / "flight").glob("*.flight")):
            try:
                tape = Tape.open(path)
            except (HpcTrainError, OSError):
                continue
            found[tape.rank] = tape
        return found

    def wait_for(self, ranks: int, batch: int) -> dict[int, Tape]:
        """The records, once all ranks have come to a batch; fewer if the job has ended."""
        until = time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < until and self.process.poll() is None:
            tapes = self.tapes()
            if len(tapes) == ranks and all(t.state().batch >= batch for t in tapes.values()):
                return tapes
            time.sleep(0.02)
        return {}

    def stop(self) -> None:
        """End it now."""
        os.killpg(self.process.pid, signal.SIGKILL)
        processes.end(self._token)
        self.process.wait()

    @property
    def running(self) -> bool:
        """Whether the launcher has not ended."""
        return self.process.poll() is None

    def end(self) -> str:
        """Wait for the end; "hang" if it does not come."""
        try:
            self.process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            return "hang"
        finally:
            if self.running:
                os.killpg(self.process.pid, signal.SIGKILL)
                processes.end(self._token)
        return ""

    def text(self) -> str:
        """What it printed."""
        self._output.seek(0)
        return self._output.read()[-4000:]

    def close(self) -> None:
        """Let go of its output, and of the launcher's files."""
        self._output.close()
        self._started.close()


def steps(run: Path) -> list[tuple[int, int]]:
    """(batch, hash of ids and bytes as delivered) of each step on record."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["batch"], r["delivered"]) for r in records if r["kind"] == "step"]


def count_events(run: Path, kind: str) -> int:
    """How often the run told of one kind of event; cheap, to be asked often."""
    return (run / "metrics.jsonl").read_bytes().count(f'"event": "{kind}"'.encode())


def last_step(run: Path) -> int:
    """The batch of the last step on record."""
    for line in reversed((run / "metrics.jsonl").read_text().splitlines()):
        if line.endswith("}") and '"kind": "step"' in line:
            return int(json.loads(line)["batch"])
    return 0


def weights(run: Path) -> np.ndarray:
    """The weights at the end of a run, flat."""
    newest = max((run / "checkpoints").glob("step-*"))
    tensors = load_file(newest / "part-000.safetensors")
    return np.concatenate([t.ravel() for n, t in sorted(tensors.items()) if n.startswith("model/")])


def verdict(job: Job, calm: Path) -> str:
    """What is wrong with the end of a job, compared with an undisturbed run."""
    problem = job.end()
    if problem:
        return problem
    try:
        result = json.loads((job.run / "result.json").read_text())
    except (OSError, ValueError):
        return "failed"
    if result["status"] != "done":
        return "failed"
    if steps(job.run) != steps(calm):
        return "samples"
    mine, other = weights(job.run), weights(calm)
    distance = float(np.linalg.norm(mine - other) / np.linalg.norm(other))
    return "" if distance < TOLERANCE else "weights"


def commits(flight: Flight) -> list[Event]:
    """The ends of updates on a rank's record."""
    return [e for e in flight.events if e.kind == "leave" and e.phase == "update"]


def recovery_seconds(survivors: dict[int, Tape], when: float) -> float | None:
    """From `when` to the first commit of a survivor after its recovery, less a normal step."""
    found = []
    for tape in survivors.values():
        flight = tape.flight()
        back = [e.time for e in flight.events if e.kind == "leave" and e.phase == "recovery"]
        back = [time for time in back if time > when]
        ends = [event.time for event in commits(flight)]
        before = [b - a for a, b in itertools.pairwise(ends) if b < when]
        after = [end for end in ends if back and end > back[0]]
        if after:
            normal = float(np.median(before)) if before else 0.0
            found.append(max(0.0, after[0] - when - normal))
    return max(found) if len(found) == len(survivors) else None


def disturb(job: Job, ranks: int, number: int, rng: random.Random, pause: float) -> Outcome:
    """Kill (SIGKILL) or stop (SIGSTOP) all ranks but one, at random instants.

    Args:
        job: the run.
        ranks: how many it has.
        number: the signal.
        rng: of instants and victims.
        pause: seconds between two, in the mean.
    """
    outcome = Outcome()
    tapes = job.wait_for(ranks, 3)
    alive = set(tapes)
    while len(alive) > 1 and job.running:
        time.sleep(rng.uniform(0, 2 * pause))
        count = 2 if len(alive) > 2 and rng.random() < 0.15 else 1  # sometimes two at once
        victims = rng.sample(sorted(alive), count)
        if any(tapes[rank].status for rank in alive):
            break  # the run is over
        alive -= set(victims)
        survivors = {rank: tapes[rank] for rank in alive}
        before = {rank: recoveries(tape) for rank, tape in survivors.items()}
        when = time.time()
        for rank in victims:
            os.kill(tapes[rank].pid, number)
        outcome.kills += count
        seconds = _await(job, survivors, before, when)
        if seconds is not None:
            outcome.recoveries.append(seconds)
    return outcome


def _await(
    job: Job, survivors: dict[int, Tape], before: dict[int, int], when: float
) -> float | None:
    until = time.monotonic() + 20
    while time.monotonic() < until and job.running:
        time.sleep(0.01)
        if all(recoveries(tape) > before[rank] for rank, tape in survivors.items()):
            found = recovery_seconds(survivors, when)
            if found is not None:
                return found
    return None


def recoveries(tape: Tape) -> int:
    """How often a rank has recovered: its operations are counted anew each time."""
    return tape.state().operations >> 40
