"""Transformations of training samples, keyed by (seed, epoch, sample id), on batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpc_train.augment.augmentation import Augmentation, Chosen, Pipeline
from hpc_train.augment.colors import Color
from hpc_train.augment.erasing import Cutout, Masking
from hpc_train.augment.movements import Crop, Flip, Rotation, Scale, Shear, Shift
from hpc_train.augment.noises import Jitter, Noise

__all__ = ["AUGMENTATIONS", "Augmentation", "Chosen", "Pipeline"]

# name -> class; further keys of its table are its arguments
AUGMENTATIONS: Mapping[str, Callable[..., Augmentation]] = {
    "flip": Flip,
    "crop": Crop,
    "rotation": Rotation,
    "shift": Shift,
    "scale": Scale,
    "shear": Shear,
    "color": Color,
    "cutout": Cutout,
    "masking": Masking,
    "noise": Noise,
    "jitter": Jitter,
}
