"""Saves are killed and sets are damaged, many times: `python -m tests.checkpoint.kills FOLDER N`.

Prints how many kills and damages there were, and what was wrong after them, as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from hpc_train.checkpoint import Saver, Store
from hpc_train.errors import CheckpointError
from tests.checkpoint.group import ranks

LONGEST = 0.15  # seconds until a kill: several saves


def state(step):
    return {f"t{i}": torch.full((40_000 + i,), float(step)) for i in range(6)}


def save(folder, steps, told=None):
    """Save sets of two parts, by two ranks; tells the steps of those that are there."""

    def run(group):
        saver = Saver(Store(folder, keep_last=2), group, part_bytes=1)
        for step in steps:
            saver.begin(step, state(step), {"step": step})
            saver.finish()
            if told is not None and group.world.is_coordinator:
                os.write(told, step.to_bytes(4, "little"))

    for outcome in ranks(2, run):
        if outcome is not None:
            raise outcome


def newest(folder):
    """The step of the newest valid set, 0 without one; its tensors must be those of the step."""
    try:
        saved = Store(folder).newest()
    except CheckpointError:
        return 0
    step = saved.manifest.step
    expected = state(step)
    whole = saved.tensors.keys() == expected.keys() and all(
        torch.equal(saved.tensors[name], tensor) for name, tensor in expected.items()
    )
    return step if whole and saved.manifest.notes == {"step": step} else -1


def kill_once(folder, rng, before):
    """Kill a process that saves; gives (newest step before, last told, newest step after)."""
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        # some sets of the same step are written again
        save(folder, (before + 1 + i // 2 for i in range(10**6)), tell)
        os._exit(1)
    os.close(tell)
    time.sleep(rng.uniform(0, LONGEST))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(told, "rb") as pipe:
        steps = pipe.read()
    last = int.from_bytes(steps[-4:], "little") if steps else before
    return before, last, newest(folder)


def kills(folder, count, rng):
    """Those after which the newest valid set was not the last one that was there, or the next."""
    wrong, step = [], 0
    for _ in range(count):
        before, last, step = kill_once(folder, rng, step)
        if not last <= step <= last + 1:
            wrong.append((before, last, step))
    return wrong, step


def damage(path, rng):
    """Truncate, remove, or flip a bit of a part or of the manifest; says what was done."""
    victim = rng.choice(sorted(path.iterdir()))
    kind = rng.choice(["truncate", "remove", "flip"])
    if kind == "remove":
        victim.unlink()
    else:
        content = bytearray(victim.read_bytes())
        place = rng.randrange(len(content))
        if kind == "flip":
            content[place] ^= 1 << rng.randrange(8)
        victim.write_bytes(content[:place] if kind == "truncate" else content)
    return f"{kind} {victim.name}"


def damages(folder, count, rng):
    """Damages that were not found, or that took the older set along."""
    wrong = []
    for _ in range(count):
        save(folder, (1, 2))
        what = damage(Store(folder).path(2), rng)
        found = newest(folder)
        # a blank of a manifest may change without changing what it says
        if found != 1 and not (found == 2 and what == "flip manifest.json"):
            wrong.append((what, found))
    return wrong


def main(folder, count, seed=0):
    rng = random.Random(seed)
    killed, last = kills(folder / "killed", count, rng)
    damaged = damages(folder / "damaged", count, rng)
    document = {"kills": count, "damages": count, "sets": last}
    print(json.dumps({**document, "wrong_after_kill": killed, "wrong_after_damage": damaged}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
