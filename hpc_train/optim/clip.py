"""Clipping by global norm."""

from __future__ import annotations


def clip_factor(norm: float, clip_norm: float | None) -> float:
    """The factor in (0, 1] that brings a gradient of this norm down to `clip_norm`.

    Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, algorithm 1. None for `clip_norm` means no clipping.
    """
    if clip_norm is None or norm <= clip_norm:
        return 1.0
    return clip_norm / norm
