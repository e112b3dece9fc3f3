"""Smaller networks: pruning while training and after, reconstruction, int8, export.

train      masks (pruning/, schedule.py)      fake_quantize.py
              |                                   |
after      graph.py -> reconstruct.py          int8.py
              |                                   |
           figures.py: what it gained         export.py: a file that plain PyTorch loads
"""

from hpc_train.compress.fake_quantize import QuantizedLayer, find_quantized, with_fake_quantization
from hpc_train.compress.graph import Coupling, couple
from hpc_train.compress.pruning import PRUNERS, Pruner, make_pruner
from hpc_train.compress.reconstruct import reconstruct
from hpc_train.compress.schedule import Gradual

__all__ = [
    "PRUNERS",
    "Coupling",
    "Gradual",
    "Pruner",
    "QuantizedLayer",
    "couple",
    "find_quantized",
    "make_pruner",
    "reconstruct",
    "with_fake_quantization",
]
