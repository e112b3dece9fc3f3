"""Gradient compression: sums of which only a part travels; the rest waits for the next one."""

from __future__ import annotations

from hpc_train.comm.compression.halves import bf16, fp16
from hpc_train.comm.compression.none import Exact
from hpc_train.comm.compression.powersgd import PowerSGD
from hpc_train.comm.compression.terms import Build, Compressor, Matrix, Terms
from hpc_train.comm.compression.topk import TopK
from hpc_train.errors import UsageError, unknown

__all__ = ["COMPRESSORS", "Compressor", "Matrix", "Terms", "find_compressor"]

# name -> what makes a compressor
COMPRESSORS: dict[str, Build] = {
    "none": Exact,
    "fp16": fp16,
    "bf16": bf16,
    "topk": TopK,
    "powersgd": PowerSGD,
}


def find_compressor(name: str) -> Build:
    """The compressor called `name`.

    Raises:
        UsageError: if there is none.
    """
    if name not in COMPRESSORS:
        raise UsageError(
            unknown("gradient compression", name, COMPRESSORS), where="comm.gradient_compression"
        )
    return COMPRESSORS[name]
