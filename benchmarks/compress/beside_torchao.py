"""int8 by torch's FX mode, as `hpc-train compress` makes it, beside torchao's; see README.md.

pip install --no-deps torchao && python benchmarks/compress/beside_torchao.py
"""

import copy
import io
import statistics
import time

import torch
import torchao
from torchao import quantization

from hpc_train.compress import int8
from hpc_train.models import cnn

ROUNDS = 40


def kibibytes(model: torch.nn.Module) -> float:
    """What its weights take on disk."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 1024


def main() -> None:
    """The network of `mnist-cnn` with first weights, all sides in turns."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, images = cnn((1, 28, 28), 10, (32, 64), 128).eval(), torch.rand(64, 1, 28, 28)
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
    print(f"torch {torch.__version__}, torchao {torchao.__version__}")
    with torch.no_grad():
        for name, side in sides.items():
            worst = (side(images) - model(images)).abs().max()
            print(f"{name:<28} {kibibytes(side):8.1f} KiB  largest error {worst:.5f}")
        for size in (1, 64):
            seconds: dict[str, list[float]] = {name: [] for name in sides}
            for turn in range(ROUNDS + 3):
                for name, side in sides.items():
                    begun = time.perf_counter()
                    side(images[:size])
                    if turn >= 3:
                        seconds[name].append(time.perf_counter() - begun)
            dense = statistics.median(seconds["float32"])
            for name, own in seconds.items():
                found = statistics.median(own)
                print(f"batch {size:<3} {name:<28} {found * 1e3:8.3f} ms  {dense / found:.2f}x")


if __name__ == "__main__":
    main()
