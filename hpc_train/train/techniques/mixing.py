"""Mixup and cutmix: each sample is mixed with a partner of its global batch.

How much is drawn once for a global batch, and partners are a part of the order, so that both are
the same however a batch is split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import torch

from hpc_train.config import Config
from hpc_train.errors import ConfigError
from hpc_train.philox import derive
from hpc_train.plan import Batch, Work
from hpc_train.tasks import Mixed, TensorBatch
from hpc_train.train.technique import Technique

STREAM = 20  # of shares and boxes


class Mixing(Technique):
    """Mixes all samples of a batch in one way; where both are on, either has every other batch.

    Args:
        mixup, cutmix: alpha of each, > 0: a share is drawn from Beta(alpha, alpha); None for off.
        seed: of the run.
    """

    name = "mixing"

    def __init__(self, mixup: float | None, cutmix: float | None, seed: int) -> None:
        self._kinds = [(a, cuts) for a, cuts in ((mixup, False), (cutmix, True)) if a is not None]
        self._seed = seed
        self._share = 1.0
        self._cuts = False
        self._place = (0.0, 0.0)

    def begin(self, batch: Batch) -> None:
        """Draw kind, share and place of the box of a global batch."""
        draw = random.Random(derive(self._seed, STREAM, batch.epoch, batch.first))
        alpha, self._cuts = draw.choice(self._kinds)
        self._share = draw.betavariate(alpha, alpha)
        self._place = (draw.random(), draw.random())

    def transform(self, batch: TensorBatch, work: Work) -> TensorBatch:
        """Inputs mixed with those of the partners; the targets of both."""
        partner = batch.partner
        assert partner is not None  # the loader brings them wherever this technique is on
        mixed, share = (self._cut if self._cuts else self._blend)(batch.inputs, partner.inputs)
        return replace(batch, inputs=mixed, partner=None, mixed=Mixed(partner.targets, share))

    def _blend(
        self, own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Mixup: share of the one, and the rest of the other."""
        for name, tensor in own.items():
            if not tensor.is_floating_point():
                raise ConfigError(
                    f"mixup needs inputs that are numbers, not {tensor.dtype} (input: {name})",
                    where="regularization.mixup",
                    hint="set data.scale, or leave mixup out",
                )
        return {name: torch.lerp(other[name], own[name], self._share) for name in own}, self._share

    def _cut(
        self, own: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], float]:
        """Cutmix: a box of the other; its share is that of the pixels that stay.

        Yun et al., "CutMix", ICCV 2019, section 3.1.
        """
        name, images = next(iter(own.items()))
        if images.dim() != 4:
            raise ConfigError(
                "cutmix needs images of shape (channels, height, width) "
                f"({name}: {tuple(images.shape[1:])})",
                where="regularization.cutmix",
                hint="mixup works on inputs of any shape",
            )
        height, width = images.shape[2:]
        edge = (1 - self._share) ** 0.5
        top, bottom = _span(height, edge, self._place[0])
        left, right = _span(width, edge, self._place[1])
        mixed = images.clone()
        mixed[:, :, top:bottom, left:right] = other[name][:, :, top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)
        return {**own, name: mixed}, share


def _span(length: int, edge: float, place: float) -> tuple[int, int]:
    """Where a box begins and ends on an axis, cut at the borders; `edge` is its relative length."""
    size, center = int(length * edge), int(length * place)
    return max(0, center - size // 2), min(length, center - size // 2 + size)


def is_on(config: Config) -> bool:
    """Whether samples need partners."""
    section = config.regularization
    return section.mixup is not None or section.cutmix is not None


def make(config: Config) -> Technique | None:
    """The technique, if one of the two is on.

    Raises:
        ConfigError: if there are no targets to mix.
    """
    if not is_on(config):
        return None
    section = config.regularization
    if not config.data.targets:
        kind = "cutmix" if section.mixup is None else "mixup"
        raise ConfigError(
            f"{kind} needs targets to mix (data.targets is not set)",
            where=f"regularization.{kind}",
            hint="name data.targets, or leave it out",
        )
    return Mixing(section.mixup, section.cutmix, config.run.seed)
