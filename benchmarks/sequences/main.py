"""Tokens a second beside a plain loop, and losses on more ranks; see README.md.

python benchmarks/sequences/main.py speed TEXT       TEXT: input.txt of tiny shakespeare
python benchmarks/sequences/main.py ranks TEXT
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn import functional

from hpc_train.bench.harness import circumstances, paired_ratios, write_results
from hpc_train.models import transformer

HERE = Path(__file__).parent
RECIPE = "shakespeare-transformer"
TRAINED = 1_003_854  # characters of the training part
WINDOW, BATCH, STEPS, ROUNDS = 64, 12, 300, 5


def trained(folder: Path, *words: str) -> dict:
    """The result of one run of the recipe, one thread a rank."""
    run = Path(tempfile.mkdtemp(dir=folder)) / "run"
    program = [sys.executable, "-m", "hpc_train", "run", RECIPE, f"run.dir={run}"]
    program += ["device.threads=1", "run.evaluate=never", "checkpoint.every=never", "--json"]
    ended = subprocess.run(
        [*program, *words], cwd=folder, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        raise SystemExit(ended.stderr)
    return json.loads(ended.stdout)


def plain(text: Path, steps: int) -> float:
    """Tokens a second of a loop as one writes it by hand, with the same network and optimizer."""
    torch.set_num_threads(1)
    characters = text.read_text(encoding="utf-8")
    known = sorted(set(characters))
    number = {character: place for place, character in enumerate(known)}
    tokens = torch.tensor([number[character] for character in characters[:TRAINED]])
    model = transformer((WINDOW,), len(known), len(known), layers=4, heads=4, width=128)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.99), weight_decay=0.1)
    began = time.perf_counter()
    for _ in range(steps):
        starts = torch.randint(len(tokens) - WINDOW, (BATCH,))
        inputs = torch.stack([tokens[s : s + WINDOW] for s in starts])
        targets = torch.stack([tokens[s + 1 : s + 1 + WINDOW] for s in starts])
        loss = functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return steps * BATCH * WINDOW / (time.perf_counter() - began)


def speed(folder: Path, text: Path) -> dict:
    """Both loops in turns; the loop by hand without evaluation, data import and start."""
    found: dict[str, list[float]] = {"hpc_train": [], "plain loop": []}
    for _ in range(ROUNDS):
        result = trained(folder, f"run.steps={STEPS}", "data.validation=shakespeare[1115000:]")
        found["hpc_train"].append(result["samples_per_second"] * WINDOW)
        found["plain loop"].append(plain(text, STEPS))
        print({name: round(values[-1]) for name, values in found.items()}, flush=True)
    ratios = paired_ratios(found["hpc_train"], found["plain loop"])
    return {"tokens_per_second": found, "ratio": statistics.median(ratios), "ratios": ratios}


def ranks(folder: Path, text: Path) -> dict:
    """The validation loss of the whole recipe on 1, 2 and 3 ranks; `text` was imported."""
    found = {}
    for count in (1, 2, 3):
        result = trained(folder, "-n", str(count))
        found[str(count)] = result["metrics"]["validation"]["loss"]
        print(f"{count} ranks: {found[str(count)]:.4f} nats per character", flush=True)
    return {"validation_loss": found, "spread": max(found.values()) - min(found.values())}


STUDIES = {"speed": speed, "ranks": ranks}


def main(study: str, text: Path) -> None:
    """Measure, print and record."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        program = [sys.executable, "-m", "hpc_train", "data", "import", str(text), "shakespeare"]
        subprocess.run(program, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        found = STUDIES[study](folder, text)
    found = {"benchmark": f"sequences/{study}", **found, "environment": circumstances()}
    print({name: found[name] for name in ("ratio", "spread") if name in found})
    write_results(HERE / "results" / f"{study}.json", found)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in STUDIES:
        raise SystemExit(f"usage: main.py {{{','.join(STUDIES)}}} TEXT")
    main(sys.argv[1], Path(sys.argv[2]).absolute())
