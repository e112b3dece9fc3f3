"""Augmentation: training samples are changed at random before the model gets them."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from hpc_train.augment import AUGMENTATIONS, Chosen, Pipeline
from hpc_train.config import Config
from hpc_train.errors import ConfigError, unknown
from hpc_train.plan import Work
from hpc_train.tasks import TensorBatch
from hpc_train.train.names import bind, find
from hpc_train.train.technique import Technique


class Augmented(Technique):
    """Each sample by random numbers of its own, a function of (seed, epoch, sample id)."""

    name = "augmentation"

    def __init__(self, pipelines: dict[str, Pipeline]) -> None:
        self._pipelines = pipelines

    def transform(self, batch: TensorBatch, work: Work) -> TensorBatch:
        """The inputs, and those of partners, changed."""
        inputs = dict(batch.inputs)
        for name, pipeline in self._pipelines.items():
            if not inputs[name].is_floating_point():
                raise ConfigError(
                    f"augmentations need numbers, not {inputs[name].dtype} (input: {name})",
                    where="augmentation",
                    hint="set data.scale, or name another input",
                )
            inputs[name] = pipeline(inputs[name], work.batch.epoch, batch.ids)
        partner = None if batch.partner is None else self.transform(batch.partner, work)
        return replace(batch, inputs=inputs, partner=partner)


def pipelines(config: Config) -> dict[str, Pipeline]:
    """The augmentations of each input that has some.

    Raises:
        ConfigError: if there is no such augmentation or input, or an argument is wrong.
    """
    chosen: list[tuple[str, Chosen]] = []
    for place, entry in enumerate(config.augmentation):
        name = entry.input or config.data.inputs[0]
        if name not in config.data.inputs:
            raise ConfigError(
                unknown("input", name, config.data.inputs), where=f"augmentation[{place}].input"
            )
        kind = find("augmentation", entry.name, AUGMENTATIONS)
        made = kind(**bind("augmentation", kind, entry.arguments, {}))
        usual: float = getattr(made, "probability", 1.0)
        probability = usual if entry.probability is None else entry.probability
        chosen.append((name, Chosen(made, probability, place)))
    by_input = groupby(sorted(chosen, key=lambda pair: pair[0]), key=lambda pair: pair[0])
    return {name: Pipeline([one for _, one in pairs], config.run.seed) for name, pairs in by_input}


def make(config: Config) -> Technique | None:
    """The technique, if the configuration lists augmentations."""
    return Augmented(pipelines(config)) if config.augmentation else None
