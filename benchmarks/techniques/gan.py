"""How many of `digits-gan`'s samples a trained classifier takes for digits; see README.md.

python benchmarks/techniques/gan.py [OVERRIDE]...     overrides are of the recipe digits-gan
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import torch

from hpc_train.bench.harness import circumstances, write_results
from hpc_train.train.trained import open_run

HERE = Path(__file__).parent
NUM_SAMPLES = 1000
SEEDS = 3


def call(folder: Path, *words: str) -> None:
    """Run hpc-train in `folder`."""
    program = [sys.executable, "-m", "hpc_train", *words]
    ended = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed:\n{ended.stderr}")


def judge(classifier: Path, samples: Path) -> dict:
    """The share of samples with a class of probability >= 0.9, and how many there are of each."""
    with h5py.File(samples) as file:
        images = torch.from_numpy(file["sample"][:])
    with torch.no_grad():
        best, classes = torch.softmax(open_run(classifier).model(images), 1).max(1)
    sure = best >= 0.9
    counts = torch.bincount(classes[sure], minlength=10)
    return {"share": sure.double().mean().item(), "classes": counts.tolist()}


def main(overrides: list[str]) -> None:
    """Train the classifier once and the GAN with several seeds; print and record."""
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        call(folder, "run", "digits-cnn", "run.dir=cnn", "device.threads=1")
        for seed in range(SEEDS):
            words = [f"run.dir=gan{seed}", f"run.seed={seed}", "device.threads=1", *overrides]
            call(folder, "run", "digits-gan", *words)
            call(folder, "sample", f"gan{seed}", f"{seed}.h5", "--num", str(NUM_SAMPLES))
            found.append({"seed": seed, **judge(folder / "cnn", folder / f"{seed}.h5")})
            print(json.dumps(found[-1]), flush=True)
    if not overrides:
        document = {
            "benchmark": "techniques/gan",
            "environment": circumstances(),
            "samples": NUM_SAMPLES,
            "seeds": found,
        }
        write_results(HERE / "results" / "gan.json", document)


if __name__ == "__main__":
    main(sys.argv[1:])
