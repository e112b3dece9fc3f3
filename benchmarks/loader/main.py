"""Records how fast data come on this machine: routes, blocks read again, waiting, cold, memory."""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import h5py
import numpy as np

from hpc_train.bench import harness
from hpc_train.bench.loader.settings import Settings, make_workload
from hpc_train.bench.loader.study import study
from hpc_train.data import Loader, make_order, open_dataset
from hpc_train.data.blocks import Blocks, Extent
from hpc_train.data.digest import delivered_hash
from hpc_train.data.loader import batch_memory
from hpc_train.launch import launching
from hpc_train.plan import Course, Plan

RESULTS = Path(__file__).parent / "results"
SAMPLE_BYTES = 12288
COLD_SAMPLES = 200_000  # three windows
FIRST_STEPS = 20
# name -> how the same kind of samples is stored: one of 12 KiB, 85 in a chunk
STORED = {
    "contiguous": {},
    "chunked": {"chunks": (85, SAMPLE_BYTES)},
    "gzip": {"chunks": (85, SAMPLE_BYTES // 4), "compression": 1, "shuffle": True},
}


def write_data(folder, count):
    """One file of each kind; what gzip gets is half zeros and half small numbers."""
    rng = np.random.default_rng(0)
    for name, options in STORED.items():
        data = rng.integers(0, 256, (count, SAMPLE_BYTES), dtype=np.uint8)
        if name == "gzip":
            data = (data // 16).view("<f4")
            data[:, ::2] = 0
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=data, **options)


def throughput(folder, rounds, seconds):
    """All sides on each kind of storage."""
    found = {}
    # of what is decoded one epoch alone: afterwards it would lie in our cache
    for name, shuffle, epochs in (
        ("contiguous", "full", 100),
        ("chunked", "window", 100),
        ("gzip", "window", 1),
    ):
        path = str(folder / f"{name}.h5")
        settings = Settings(path, shuffle=shuffle, rounds=rounds, seconds=seconds, epochs=epochs)
        found[name] = study(settings, tell)["sides"]
    return found


def cold(folder, rounds):
    """Ours beside pread after the page cache was emptied, a whole epoch each.

    A window's first batch needs something of each of its blocks: of one window all is read before
    anything is copied; of several, those to come are read meanwhile.
    """
    with h5py.File(folder / "windows.h5", "w") as file:
        whole = file.create_dataset("x", (COLD_SAMPLES, SAMPLE_BYTES), np.uint8)
        rng = np.random.default_rng(0)
        for first in range(0, COLD_SAMPLES, 10_000):
            part = (min(10_000, COLD_SAMPLES - first), SAMPLE_BYTES)
            whole[first : first + 10_000] = rng.integers(0, 256, part, dtype=np.uint8)
    found = {}
    for name, file in (("one window", "contiguous"), ("several windows", "windows")):
        settings = Settings(str(folder / f"{file}.h5"), rounds=rounds, seconds=60, cold=True)
        found[name] = study(settings, tell, only=("ours", "machine"))["sides"]
    return found


def amplification(folder):
    """Bytes read per byte used in one epoch, all ranks together, each with the same budget."""
    rows, size, window = 128, 784, 96
    budget = window * rows * size
    found = []
    for blocks, counts in [
        ("equal", (384,)),
        ("equal", (192, 192)),
        ("equal", (128, 128, 128)),
        ("equal", (96,) * 4),
        ("short last", (13, 10, 6, 3)),
        ("short last", (40, 30, 20, 10)),
        ("short last", (102, 77, 51, 26)),
    ]:
        samples = rows * 36 if blocks == "equal" else rows * 36 + 52
        place = folder / blocks.replace(" ", "-")
        if not place.exists():
            place.mkdir()
            for number in range(8):
                with h5py.File(place / f"{number}.h5", "w") as file:
                    data = np.zeros((samples, size), np.uint8)
                    file.create_dataset("x", data=data, chunks=(rows, size), compression=1)
        dataset = open_dataset(str(place), ["x"], rows)
        order = make_order("window", dataset.blocks(), 0, window)
        read = sum(epoch_bytes(dataset, order, counts, r, budget) for r in range(len(counts)))
        ratio = read / (dataset.num_samples * size)
        found.append(
            {
                "blocks": blocks,
                "counts": counts,
                "window_blocks": window,
                "cache_bytes": budget,
                "read_per_used": ratio,
            }
        )
        tell(f"{blocks:<10}  shares {counts}  bytes read / used {ratio:.3f}")
    return found


def epoch_bytes(dataset, order, counts, rank, cache_bytes):
    """What one rank reads in the first epoch."""
    course, plan = Course(dataset.num_samples, sum(counts)), Plan(counts)
    batches = course.batches(0, -(-dataset.num_samples // sum(counts)))
    works = [plan.work(batch, rank) for batch in batches]
    with Loader(dataset, order, ["x"], cache_bytes=cache_bytes) as loader:
        loader.follow(iter(works))
        for work in works:
            loader.get(work)
        return loader.bytes_read


def waiting(folder, rounds, share=0.8):
    """Part of a step spent in `get`, when the trainer consumes at `share` of the loader's rate.

    Without the first steps, before which no batch can lie ready and buffers are made; and with
    them.
    """
    found = {}
    for name in STORED:
        epochs = 1 if name == "gzip" else 10  # later its blocks would lie in our cache
        workload = make_workload(Settings(str(folder / f"{name}.h5"), epochs=epochs))
        steps, parts, whole = [], [], []
        for _ in range(rounds):
            begin, _, seconds = epoch_seconds(workload, 0.0)
            step = (begin + seconds) / len(workload.works) / share
            _, gets, seconds = epoch_seconds(workload, step)
            steps.append(step)
            whole.append(sum(gets) / seconds)
            steady = gets[FIRST_STEPS:]
            parts.append(sum(steady) / (sum(steady) + step * len(steady)))
        found[name] = {
            "epochs": epochs,
            "step_seconds": harness.summary(steps).to_json(),
            "waiting_share": harness.summary(parts).to_json(),
            "with_the_first_steps": harness.summary(whole).to_json(),
        }
        told = (found[name][key]["median"] for key in ("waiting_share", "with_the_first_steps"))
        tell("{:<10}  waits {:.1%} of a step, {:.1%} with the first ones".format(name, *told))
    return found


def node(folder, rounds):
    """Blocks decoded once in a node, on 2 ranks for the time and on 4 for the bytes."""
    found = {}
    for ranks, turns in ((2, rounds), (4, 1)):
        program = [sys.executable, str(Path(__file__).with_name("node.py"))]
        # half of the data on each rank: a window and what is read ahead fit, an epoch does not
        program += [str(folder / "gzip.h5"), str(96 * 2**20), str(turns)]
        with launching(program, ranks) as call:
            env = {**call.environ, "OMP_NUM_THREADS": "1"}
            ended = subprocess.run(call.argv, env=env, check=True, capture_output=True, text=True)
        found[ranks] = json.loads(ended.stdout.splitlines()[-1])
        for case, row in found[ranks].items():
            tell(
                f"{ranks} ranks  {case:<15}  shared {row['times_as_fast']['median']:.2f}x as fast, "
                f"bytes read / used {row['read_per_used_shared']:.3f}, apart "
                f"{row['read_per_used_apart']:.3f}"
            )
    return found


def epoch_seconds(workload, step_seconds):
    """Seconds until the first batch, those spent in each `get` after it, and all after it.

    Each step takes `step_seconds` by the clock: the trainer sleeps, as if a device computed.
    """
    gets = []
    with Loader(workload.dataset, workload.order, workload.fields) as loader:
        begun = time.perf_counter()
        loader.follow(iter(workload.works))
        loader.get(workload.works[0])
        started = due = time.perf_counter()
        for work in workload.works[1:]:
            asked = time.perf_counter()
            loader.get(work)
            got = time.perf_counter()
            gets.append(got - asked)
            due = max(due, got) + step_seconds
            time.sleep(max(0.0, due - time.perf_counter()))
        return started - begun, gets, time.perf_counter() - started


def copying(rounds, seconds=1.0, count=20000):
    """What the machine allows: threads that copy random batches from memory, and hash them or not.

    GB/s by number of threads; each has a ring of four buffers in huge pages, as the loader has.
    """
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (count, SAMPLE_BYTES), dtype=np.uint8)

    def work(seed, stop, hashes, done):
        ring = [batch_memory((256, SAMPLE_BYTES), np.dtype(np.uint8)) for _ in range(4)]
        ids = np.random.default_rng(seed)
        while time.perf_counter() < stop:
            wanted, batch = ids.integers(0, count, 256), ring[done[seed] % 4]
            np.take(data, wanted, axis=0, out=batch, mode="clip")
            if hashes:
                delivered_hash(wanted, {"x": batch})
            done[seed] += 1

    sides = {(n, hashes): [] for hashes in (False, True) for n in (1, 2)}
    for _, (number, hashes) in harness.alternate(list(sides), rounds):
        begun, done = time.perf_counter(), [0] * number
        given = (begun + seconds, hashes, done)
        threads = [threading.Thread(target=work, args=(n, *given)) for n in range(number)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        gigabytes = sum(done) * 256 * SAMPLE_BYTES / 1e9
        sides[number, hashes].append(gigabytes / (time.perf_counter() - begun))
    found = {}
    for (number, hashes), rates in sides.items():
        name = f"{number} threads that copy{' and hash' if hashes else ''}"
        found[name] = harness.summary(rates).to_json()
        tell(f"{name}: {found[name]['median']:.1f} GB/s")
    return found


def order_at_scale(rounds=20):
    """10^9 samples in 10^7 blocks on 10^5 ranks: seconds for a rank's samples of a step."""
    blocks = Blocks([Extent(shard, 0, 10**6, 100) for shard in range(1000)])
    course, plan = Course(blocks.num_samples, 10**5), Plan((1,) * 10**5)
    order = make_order("window", blocks, 0, 1000)
    steps = np.random.default_rng(0).integers(0, course.per_epoch, rounds)
    found = []
    for step in [0, *steps.tolist()]:  # the first one makes the tables of the epoch
        (batch,) = course.batches(step, step + 1)
        begun = time.perf_counter()
        work = plan.work(batch, 77_777)
        order.ids(batch)[work.start : work.stop]
        found.append(time.perf_counter() - begun)
    row = harness.summary(found[1:]).to_json()
    tell(f"10^9 samples, 10^5 ranks: {row['median'] * 1000:.1f} ms a step, in any order of steps")
    return {"window_blocks": 1000, "batch_size": 10**5, "seconds": row, "first": found[0]}


def memory(folder, cache_bytes=128 * 2**20):
    """Memory above the budget, of a process that reads an epoch of more data than that."""
    command = [sys.executable, __file__, "--memory-of", str(folder / "gzip.h5"), str(cache_bytes)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def memory_of(path, cache_bytes):
    """Read an epoch and print how the resident memory grew."""
    workload = make_workload(Settings(path, batch_size=32))
    workload.order.ids(workload.works[0].batch)
    before, peak, done = resident(), [0], threading.Event()

    def watch():
        while not done.wait(0.002):
            peak[0] = max(peak[0], resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    with Loader(workload.dataset, workload.order, ["x"], cache_bytes=cache_bytes) as loader:
        loader.follow(iter(workload.works))
        for work in workload.works:
            loader.get(work)
    done.set()
    watcher.join()
    above = (peak[0] - before - cache_bytes) / cache_bytes
    print(json.dumps({"cache_bytes": cache_bytes, "above_budget": above}))


def resident():
    """Resident bytes of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise LookupError("VmRSS")


def tell(line):
    print(line, file=sys.stderr, flush=True)


PARTS = {
    "throughput": lambda folder, given: throughput(folder, given.rounds, given.seconds),
    "waiting": lambda folder, given: waiting(folder, given.rounds),
    "amplification": lambda folder, given: amplification(folder),
    "order_at_scale": lambda folder, given: order_at_scale(),
    "memory": lambda folder, given: memory(folder),
    "copying": lambda folder, given: copying(given.rounds),
    "node": lambda folder, given: node(folder, given.rounds),
    "cold": lambda folder, given: cold(folder, given.rounds),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=PARTS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.memory_of:
        memory_of(given.memory_of[0], int(given.memory_of[1]))
        return
    given.out.mkdir(parents=True, exist_ok=True)
    # beside the results: a disk, so that a cold cache is cold; /tmp may lie in memory
    with tempfile.TemporaryDirectory(prefix=".data-", dir=given.out) as name:
        folder = Path(name)
        write_data(folder, given.samples)
        document = {
            "benchmark": "loader",
            "environment": harness.circumstances(),
            "samples": given.samples,
        }
        for part in given.only:
            document[part] = PARTS[part](folder, given)
    path = given.out / f"loader-{datetime.datetime.now():%Y%m%d-%H%M%S}.json"
    harness.write_results(path, document)
    tell(f"written to {path}")


if __name__ == "__main__":
    main()
