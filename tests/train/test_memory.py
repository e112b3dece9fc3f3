"""The allocator keeps what is freed: a second pass over fresh memory costs no page faults."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
import torch
from hpc_train.train.memory import keep_freed_memory

if sys.argv[1] == "keep" and not keep_freed_memory():
    print("refused")
    raise SystemExit
faults = []
for _ in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2_000_000) for _ in range(10)]
    del tensors
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(min(faults[2:]))
"""


def faults(mode, **settings):
    # glibc learns thresholds from what is freed: a fixed one stands for a process that has not yet
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, mode],
        env={**environ, **settings},
        capture_output=True,
        text=True,
        check=True,
    )
    return ended.stdout.strip()


def test_freed_memory_is_kept():
    kept = faults("keep")
    if kept == "refused":
        pytest.skip("this C library has no mallopt")
    assert int(kept) < 1000
    assert int(faults("leave", MALLOC_MMAP_THRESHOLD_="131072")) > 10_000


def test_the_users_own_settings_are_left_alone():
    assert faults("keep", MALLOC_MMAP_THRESHOLD_="131072") == "refused"
