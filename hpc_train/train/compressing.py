"""A trained network made smaller, without ranks: pruned, rebuilt, quantised, measured, written."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hpc_train.compress import int8, make_pruner, reconstruct
from hpc_train.compress.export import export, load_exported
from hpc_train.compress.figures import BATCHES, Cost, flops, latency_ms, parameters
from hpc_train.compress.pruning import Rule, weights_of
from hpc_train.compress.pruning.sensitivity import Sensitivity
from hpc_train.config import Config, load
from hpc_train.data import Dataset, Loader, Order, make_order
from hpc_train.errors import ConfigError, UsageError
from hpc_train.plan import works
from hpc_train.strategies import Layout
from hpc_train.tasks import Phase, Task, TensorBatch, summarized, sums_of
from hpc_train.train import state
from hpc_train.train.build import DTYPES
from hpc_train.train.datasets import measured, open_alone
from hpc_train.train.feed import Feed, normal_of
from hpc_train.train.learning import make_task
from hpc_train.train.network import make_model
from hpc_train.train.played import is_played
from hpc_train.train.saving import make_store
from hpc_train.train.some_loss import measured_order
from hpc_train.train.sums import measure
from hpc_train.train.survey import (
    needed_fields,
    normal_inputs,
    scale_of,
    survey,
    targets_of,
    windows_of,
)
from hpc_train.train.weights import final_weights

_PORTION = 256  # samples that are evaluated at once
_LOOKED_AT = 1024  # training samples that ranges and sensitivities are found with
_RANGES = (".input_low", ".input_high")


@dataclass(frozen=True)
class Wish:
    """What shall be done.

    Attributes:
        prune: the name of a rule; "none" to prune no more than training did.
        amount: see `config.schema.compress.Compress`.
        quantize: a key of `int8.METHODS`.
        seconds: how long each latency is measured.
    """

    prune: str
    amount: float
    quantize: str
    seconds: float = 1.0


@dataclass(frozen=True)
class Report:
    """What it gained: costs and metrics of the test data before and after.

    `scan` is what was measured of each layer, to prune by sensitivity, as a table of text.
    """

    data: str
    before: Cost
    after: Cost
    metrics_before: dict[str, float]
    metrics_after: dict[str, float]
    scan: list[list[str]] | None = None

    def json(self) -> dict[str, Any]:
        """As a document."""
        return asdict(self)


class Plain:
    """The network of a run as its builder made it, without what training adds.

    Args:
        folder: a run directory.

    Attributes:
        config: of the run.
        model: with the weights of the newest valid checkpoint, on the CPU, in float32.
        ranges: of the inputs of layers, by name, where training learned to be int8.
        quantize: what its training was for: "static" or "none".

    Raises:
        ConfigError: if `folder` is no run directory, or its task is not one that can be measured.
        CheckpointError: if it holds no valid checkpoint.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.toml").is_file():
            raise ConfigError("no run directory", where=str(folder), hint="runs lie in runs/")
        config = load(folder / "config.toml").config
        _check(config, folder)
        self.config = config
        self._datasets = open_alone(config)
        plan = survey(config, self._datasets, 1)
        saved = make_store(config, folder).newest()
        found = final_weights(saved)
        self.model = make_model(config, plan).to(DTYPES[config.precision.dtype])
        plain = {name: tensor for name, tensor in found.items() if not name.endswith(_RANGES)}
        state.load_model(self.model, plain, str(saved.path))
        self.model = self.model.float().eval()
        self.ranges = _ranges(found)
        self.quantize = "static" if self.ranges else "none"
        self._window = plan.window
        self._task: Task = make_task(config, plan.num_outputs)
        train = measured(config, self._datasets["train"])
        self._feed = Feed(
            inputs=config.data.inputs,
            targets=targets_of(config),
            device=torch.device("cpu"),
            dtype=torch.float32,
            scale=scale_of(config),
            micro_batch_size=None,
            windows=windows_of(config),
            normal=normal_of(
                train, normal_inputs(config, train), torch.device("cpu"), torch.float32
            ),
        )

    @property
    def data(self) -> str:
        """Which data the network is measured on."""
        kinds = [kind for kind in ("test", "validation", "train") if kind in self._datasets]
        return kinds[0]

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss and metrics of all of `data`."""
        dataset: Dataset = self._datasets[self.data]
        order = make_order("none", dataset.blocks(), 0, 1)
        return self._measure(model, self.data, order, dataset.num_samples)

    def loss(self, model: nn.Module) -> float:
        """The mean loss of the samples that `SomeLoss` measures."""
        kind = "validation" if "validation" in self._datasets else "train"
        order, length = self._order(kind)
        count = min(self.config.compress.scan_samples, length)
        return self._measure(model, kind, order, count)["loss"]

    def samples(self) -> list[torch.Tensor]:
        """Inputs of the first training samples in the order of the run."""
        return [next(iter(batch.inputs.values())) for batch in self._training_batches()]

    def batch_losses(self, model: nn.Module) -> Iterator[torch.Tensor]:
        """The mean losses of batches of the first training samples, to be derived."""
        for batch in self._training_batches():
            yield self._task.phases[0].losses(model, batch).values.mean()

    def _training_batches(self) -> Iterator[TensorBatch]:
        """The first training samples in the order of the run."""
        order, length = self._order("train")
        with self._loader("train", order) as loader:
            for work in works(0, min(_LOOKED_AT, length), _PORTION):
                yield self._feed.batch(loader.read(work), 0, work.size)

    def _order(self, kind: str) -> tuple[Order, int]:
        return measured_order(self.config, self._datasets, kind, self._window)

    def _loader(self, kind: str, order: Order) -> Loader:
        return Loader(self._datasets[kind], order, needed_fields(self.config))

    def _measure(self, model: nn.Module, kind: str, order: Order, count: int) -> dict[str, float]:
        phase: Phase = self._task.phases[0]
        with self._loader(kind, order) as loader:
            samples = map(loader.read, works(0, count, _PORTION))
            tally = measure(model, phase, self._feed, samples)
        layout = Layout(list(sums_of(self._task)), 1)
        found = layout.unpack(layout.pack(tally, 0, None))
        metrics = summarized(self._task, found.weight, found.loss, found.sums)
        return {"loss": found.mean_loss, **metrics}


def compress(plain: Plain, wish: Wish, path: Path) -> Report:
    """Write a smaller network to `path`, and what it gained.

    Raises:
        UsageError: if it cannot be done to this network.
        ConfigError: if a rule or a method is unknown.
    """
    before, samples = plain.model, plain.samples()
    smaller, scan = _pruned(plain, wish, samples[0][:2])
    rebuilt = _rebuilt(smaller, samples[0][:2], must=wish.prune == "channels")
    after = _quantized(rebuilt, wish, samples, plain.ranges)
    example = samples[0]
    original = path.with_name(".before.pt")
    sizes = export(before, example, original), export(after, example, path)
    files = load_exported(original), load_exported(path)  # as their users run them
    times = {n: latency_ms(*files, _batch(example, n), seconds=wish.seconds) for n in BATCHES}
    original.unlink()
    return Report(
        plain.data,
        _cost(sizes[0], before, example, {n: first for n, (first, _) in times.items()}),
        _cost(sizes[1], rebuilt, example, {n: second for n, (_, second) in times.items()}),
        plain.evaluate(before),
        plain.evaluate(after),
        scan,
    )


def _cost(
    size_bytes: int, model: nn.Module, example: torch.Tensor, latency: dict[int, float]
) -> Cost:
    return Cost(size_bytes, *parameters(model), flops(model, example), latency)


def _pruned(
    plain: Plain, wish: Wish, example: torch.Tensor
) -> tuple[nn.Module, list[list[str]] | None]:
    """A copy of the network with fewer weights, at once and without training after it.

    Beside it what was measured of its layers, if that was.
    """
    model = copy.deepcopy(plain.model)
    if wish.prune == "none":
        return model, None
    section = plain.config.compress
    keep, of = section.keep_of
    rule = Rule(model, example, wish.amount, keep, of, section.channel_multiple)
    pruner = make_pruner(wish.prune, rule)
    named = dict(model.named_parameters())
    squares = _squares(plain, model) if pruner.wants_gradients else {}
    masks = {name: torch.ones_like(named[name], dtype=torch.bool) for name in pruner.names}
    scan = None
    if isinstance(pruner, Sensitivity):
        scan = pruner.scan(lambda masks: _trial(plain, model, masks)).rows(wish.amount)
    with torch.no_grad():
        for name, mask in pruner.masks(masks, squares, 1.0).items():
            named[name].mul_(mask)
    return model, scan


def _trial(plain: Plain, model: nn.Module, masks: Mapping[str, torch.Tensor]) -> float:
    """The loss of a copy of the model with masks on."""
    tried = copy.deepcopy(model)
    named = dict(tried.named_parameters())
    with torch.no_grad():
        for name, mask in masks.items():
            named[name].mul_(mask)
    return plain.loss(tried)


def _squares(plain: Plain, model: nn.Module) -> dict[str, torch.Tensor]:
    """Mean squares of gradients over batches of training samples."""
    weights = weights_of(model)
    squares = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for losses in plain.batch_losses(model):
        grads = torch.autograd.grad(losses, list(weights.values()))
        for square, grad in zip(squares.values(), grads, strict=True):
            square.addcmul_(grad, grad)
    return squares


def _rebuilt(model: nn.Module, example: torch.Tensor, *, must: bool) -> nn.Module:
    """Without dead channels; a network that cannot be traced keeps them, if it may."""
    try:
        return reconstruct(model, example)
    except UsageError:
        if must:
            raise
        return model


def _quantized(
    model: nn.Module,
    wish: Wish,
    samples: list[torch.Tensor],
    ranges: dict[str, tuple[float, float]],
) -> nn.Module:
    if wish.quantize == "static":
        return int8.static(model, samples, ranges)
    return int8.dynamic(model) if wish.quantize == "dynamic" else model


def _ranges(found: dict[str, torch.Tensor]) -> dict[str, tuple[float, float]]:
    """The ranges of layers' inputs that training left behind."""
    names = [name.removesuffix(_RANGES[0]) for name in found if name.endswith(_RANGES[0])]
    pairs = {name: tuple(float(found[name + end]) for end in _RANGES) for name in names}
    return {name: (low, high) for name, (low, high) in pairs.items() if math.isfinite(high)}


def _batch(example: torch.Tensor, size: int) -> torch.Tensor:
    """`size` samples, repeated where there are fewer."""
    return example[torch.arange(size) % len(example)]


def _check(config: Config, folder: Path) -> None:
    if is_played(config) or len(config.data.inputs) != 1:
        raise ConfigError(
            "networks of one input and stored samples can be compressed "
            f"(data.train: {config.data.train}, data.inputs: {config.data.inputs})",
            where=str(folder),
        )
    if config.ensemble.members > 1:
        raise ConfigError(
            "an ensemble has several networks", where=str(folder), hint="name one of its members"
        )
