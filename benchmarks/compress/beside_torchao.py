"""int8 by torch's FX mode, as `hpc-train compress` makes it, beside torchao's; see README.md.

pip install --no-deps torchao && python benchmarks/compress/beside_torchao.py --json FILE
"""

import argparse
import copy
import io
import time
from pathlib import Path

import torch
import torchao
from torchao import quantization

from hpc_train.bench.harness import circumstances, paired_ratios, summary, write_results
from hpc_train.compress import int8
from hpc_train.models import cnn

ROUNDS = 40


def kibibytes(model: torch.nn.Module) -> float:
    """What its weights take on disk."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 1024


def sides_of(model: torch.nn.Module, images: torch.Tensor) -> dict[str, torch.nn.Module]:
    """The network as it is, and as each way makes it smaller."""
    sides = {
        "float32": model,
        "static, FX": int8.static(copy.deepcopy(model), [images], {}),
        "dynamic": int8.dynamic(copy.deepcopy(model)),
    }
    for name, settings in (
        ("torchao dynamic", quantization.Int8DynamicActivationInt8WeightConfig),
        ("torchao weights", quantization.Int8WeightOnlyConfig),
    ):
        sides[name] = copy.deepcopy(model)
        quantization.quantize_(sides[name], settings())
        sides[f"{name}, compiled"] = torch.compile(copy.deepcopy(sides[name]))
    return sides


def measured(sides: dict[str, torch.nn.Module], images: torch.Tensor) -> dict[str, list[float]]:
    """Seconds of each side in each round, after three to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(ROUNDS + 3):
        for name, side in sides.items():
            begun = time.perf_counter()
            side(images)
            if turn >= 3:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def main() -> None:
    """The network of `mnist-cnn` with first weights, all sides in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="record the figures there")
    out = parser.parse_args().json
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, images = cnn((1, 28, 28), 10, (32, 64), 128).eval(), torch.rand(64, 1, 28, 28)
    sides = sides_of(model, images)
    found: dict[str, dict] = {name: {"kib": kibibytes(side)} for name, side in sides.items()}
    with torch.no_grad():
        for name, side in sides.items():
            found[name]["largest_error"] = (side(images) - model(images)).abs().max().item()
        for size in (1, 64):
            seconds = measured(sides, images[:size])
            for name, own in seconds.items():
                ratio = summary(paired_ratios(seconds["float32"], own))
                ms = summary(own).median * 1e3
                found[name][f"batch_{size}"] = {"ms": ms, "times_as_fast": ratio.to_json()}
                print(f"batch {size:<3} {name:<28} {ms:8.3f} ms  {ratio.median:.2f}x", flush=True)
    if out is not None:
        document = {"benchmark": "compress/torchao", "torchao": torchao.__version__, "sides": found}
        write_results(out, {**document, "environment": circumstances()})


if __name__ == "__main__":
    main()
