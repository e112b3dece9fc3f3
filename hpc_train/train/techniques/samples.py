"""Grids of generated samples, as pictures in the run directory at each evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hpc_train.observe.picture import grid, is_picture, write_png
from hpc_train.tasks import Task
from hpc_train.train.technique import Technique

logger = logging.getLogger(__name__)

NUM_SAMPLES = 64  # of a picture
FOLDER = "samples"

# samples (n, *shape) of a model for their numbers, int64, shape (n,)
Generate = Callable[[nn.Module, torch.Tensor], torch.Tensor]


class Samples(Technique):
    """Rank 0 writes what the model generates; always the same samples, to be compared."""

    name = "samples"

    def __init__(self, generate: Generate, model: nn.Module, folder: Path) -> None:
        self._generate = generate
        self._model = model
        self._folder = folder

    def inspect(self, step: int) -> None:
        """Write the picture of step `step`; a failure warns."""
        samples = generate(self._generate, self._model, torch.arange(NUM_SAMPLES))
        if not is_picture(tuple(samples.shape[1:])):
            return
        try:
            self._folder.mkdir(exist_ok=True)
            pixels = grid(samples.double().cpu().numpy())
            write_png(self._folder / f"step-{step:08d}.png", pixels)
        except OSError as error:
            logger.warning("cannot write a picture of samples: %s", error)


def generate(function: Generate, model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Samples `ids` in evaluation mode, without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return function(model, ids)
    finally:
        model.train(was_training)


def make(task: Task, model: nn.Module, run_dir: str | None, *, writes: bool) -> Technique | None:
    """The technique, for a task that generates samples, on the rank that writes."""
    function = getattr(task, "generate", None)
    if function is None or run_dir is None or not writes:
        return None
    return Samples(function, model, Path(run_dir) / FOLDER)
