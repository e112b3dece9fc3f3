"""The one place that knows every class: from a configuration and connected ranks to all parts."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.config.schema.optimizer import PhaseOptimizer
from hpc_train.data import Dataset, Loader, Order, make_order, open_dataset, partners, share_dataset
from hpc_train.errors import ConfigError, unknown
from hpc_train.optim import Grouping, LearningRate, Settings, Shape, batch_scale
from hpc_train.optim.groups import norms_and_biases, unmatched
from hpc_train.plan import Every
from hpc_train.schedule import Scheduler, Situation, find_policy
from hpc_train.strategies import Layout, Learner, Strategy, make_strategy
from hpc_train.tasks import TASKS, Phase, Reinforcement, Task, sums_of
from hpc_train.train.device import ready_device, set_threads
from hpc_train.train.episodes import Episodes, Playing
from hpc_train.train.feed import Feed
from hpc_train.train.names import bind, find
from hpc_train.train.network import bind_model, make_network
from hpc_train.train.options import make_options
from hpc_train.train.played import environment_of, is_played, played_dataset, resolve_fields
from hpc_train.train.player import Player, Replayed
from hpc_train.train.rereading import rereading
from hpc_train.train.sampling import training_orders
from hpc_train.train.source import Source
from hpc_train.train.survey import Survey, needed_fields, scale_of, survey, targets_of, windows_of
from hpc_train.train.technique import Technique, Techniques
from hpc_train.train.techniques import Needs, make_techniques, mixing
from hpc_train.train.techniques.augmentation import pipelines
from hpc_train.train.techniques.transfer import openings
from hpc_train.train.wanted import check_wanted
from hpc_train.world import together

logger = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "float64": torch.float64}
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class Parts:
    """All parts of a run, on one rank.

    Attributes:
        config: the configuration, with everything resolved that was left to "auto".
        loaders: one per data set, by "train", "validation", "test".
        evaluation: the phase whose losses and metrics evaluations have.
        learners: one per phase of the task, in their order.
    """

    config: Config
    comm: Comm
    survey: Survey
    device: torch.device
    threads: int
    loaders: dict[str, Source]
    feed: Feed
    model: nn.Module
    task: Task
    evaluation: Phase
    learners: list[Learner]
    scheduler: Scheduler
    strategy: Strategy
    rates: LearningRate
    techniques: Techniques

    def close(self) -> None:
        """Join all threads and close all files."""
        for loader in self.loaders.values():
            loader.close()


@dataclass(frozen=True)
class Own:
    """What a caller brings: this rank's device, None to choose one; techniques that come last."""

    device: torch.device | None = None
    techniques: Sequence[Technique] = ()


NOTHING = Own()


def build(config: Config, comm: Comm, model: nn.Module | None = None, own: Own = NOTHING) -> Parts:
    """Make every part of a run; whatever fails on one rank fails on all.

    Args:
        config: what was asked for.
        comm: the ranks.
        model: a network of the caller's own, in place of the one that the configuration names.
        own: further things of the caller's own.

    Raises:
        RankError: on every rank.
    """
    config = together(comm, lambda: resolve_fields(config))
    datasets = open_datasets(config, comm)
    plan = together(comm, lambda: survey(config, datasets, comm.world.size))
    device = own.device or together(comm, lambda: ready_device(config, comm))
    threads = set_threads(config.device.threads, comm)
    if comm.world.is_coordinator:
        _warn(config, plan, datasets["train"], comm.world.size)
    config = _resolved(config, plan)
    feed = _feed(config, device)
    task = together(comm, lambda: make_task(config, plan.num_outputs))
    network = together(comm, lambda: make_network(config, plan, model, feed, datasets["train"]))
    learners = together(comm, lambda: make_learners(config, task, network))
    scheduler = make_scheduler(config, comm.members, plan.num_batches)
    layout = Layout(list(sums_of(task)), comm.world.size)
    strategy = make_strategy(
        config.strategy.name, comm, network, learners, layout, scheduler, make_options(config)
    )
    orders = together(comm, lambda: training_orders(config, datasets["train"], plan.window))
    player = together(comm, lambda: make_player(config, comm, task, network, feed))
    needs = Needs(config, comm, plan, network, learners, task, player)
    techniques = together(comm, lambda: make_techniques(needs, own.techniques))
    return Parts(
        config=config,
        comm=comm,
        survey=plan,
        device=device,
        threads=threads,
        loaders={k: _source(config, k, d, orders.get(k), player) for k, d in datasets.items()},
        feed=feed,
        model=network,
        task=task,
        evaluation=task.phases[0] if player is None else _playing(config, task, feed),
        learners=learners,
        scheduler=scheduler,
        strategy=strategy,
        rates=make_rates(config, plan),
        techniques=techniques,
    )


def _warn(config: Config, plan: Survey, train: Dataset, num_ranks: int) -> None:
    """Tell what is allowed and yet strange, or slow."""
    for warning in (*plan.warnings, *rereading(config, train, plan.window, num_ranks)):
        logger.warning("%s", warning)


def _resolved(config: Config, plan: Survey) -> Config:
    """The configuration with what the survey found in place of "auto"."""
    return config.model_copy(
        update={"data": config.data.model_copy(update={"shuffle_window": plan.window})}
    )


def open_datasets(config: Config, comm: Comm) -> dict[str, Dataset]:
    """The data sets that the configuration names, by what they are for."""
    if is_played(config):
        names = _dataset_names(config).items()
        return together(comm, lambda: {k: played_dataset(config, k, name) for k, name in names})
    return {
        kind: share_dataset(
            comm,
            name,
            needed_fields(config, kind),
            config.data.block_rows,
            windows_of(config, kind),
        )
        for kind, name in _dataset_names(config).items()
    }


def _dataset_names(config: Config) -> dict[str, str]:
    data = config.data
    names = {"train": data.train, "validation": data.validation, "test": data.test}
    return {kind: name for kind, name in names.items() if name is not None}


def make_task(config: Config, num_classes: int | None = None) -> Task:
    """The task that the configuration names, offered the classes that the data have."""
    section = config.task
    kind = find("task", section.name, TASKS)
    num_classes = config.model.arguments.get("num_classes", num_classes)
    offered = {"seed": config.run.seed, "num_classes": num_classes, **_offered(config, kind)}
    task: Task = kind(**bind("task", kind, section.arguments, offered))
    for what in ("phases", "metrics"):
        if not hasattr(task, what):
            raise ConfigError(
                f'a task must have `{what}` ("{section.name}" has none)',
                where="task.name",
                hint="derive it from hpc_train.tasks.task.Supervised",
            )
    check_wanted(config, task.metrics)
    _check_phases(config, [phase.name for phase in task.phases])
    return task


def _check_phases(config: Config, known: Sequence[str]) -> None:
    """Check that settings for phases are for those that the task has."""
    for name in config.optimizer.phases:
        if name not in known:
            raise ConfigError(unknown("phase", name, known), where=f"optimizer.phases.{name}")


def _offered(config: Config, kind: Callable[..., Task]) -> dict[str, object]:
    """What regularization offers to a task; one that cannot take it is an error."""
    smoothing = config.regularization.label_smoothing
    if not smoothing:
        return {}
    if "label_smoothing" not in inspect.signature(kind).parameters:
        raise ConfigError(
            f'task "{config.task.name}" has no labels to smooth '
            f"(regularization.label_smoothing: {smoothing})",
            where="regularization.label_smoothing",
            hint="leave it out, or give the task an argument label_smoothing",
        )
    return {"label_smoothing": smoothing}


def open_alone(config: Config) -> dict[str, Dataset]:
    """`open_datasets` without ranks."""
    if is_played(config):
        return {k: played_dataset(config, k, name) for k, name in _dataset_names(config).items()}
    return {
        kind: open_dataset(
            name,
            needed_fields(config, kind),
            config.data.block_rows,
            windows_of(config, kind),
        )
        for kind, name in _dataset_names(config).items()
    }


def preflight(config: Config, num_ranks: int) -> Survey:
    """Check all that can be checked without ranks: data, plan, task and model builder.

    Raises:
        HpcTrainError: for whatever would stop the run at its beginning.
    """
    config = resolve_fields(config)
    plan = survey(config, open_alone(config), num_ranks)
    make_task(config, plan.num_outputs)
    pipelines(config)
    mixing.make(config)
    if config.device.name == "cuda" and not torch.cuda.is_available():
        logger.warning("device.name is cuda, and no GPU can be seen from here")
    bind_model(config, plan)
    return plan


def make_scheduler(config: Config, members: Sequence[int], num_batches: int) -> Scheduler:
    """The scheduler of the policy that the configuration names; rank 0's decides.

    Args:
        config: what was asked for.
        members: the number that each rank had at the beginning: shares are stated for those.
        num_batches: the length of the run.
    """
    section = config.schedule
    shares = section.shares
    if shares is not None:
        shares = [shares[member] for member in members]
        shares = shares if sum(shares) > 0 else None  # those that had samples are gone
    situation = Situation.unknown(
        config.data.batch_size, len(members), shares, config.data.micro_batch_size or 1
    )
    return Scheduler(find_policy(section.policy), situation, num_batches)


def make_learners(config: Config, task: Task, model: nn.Module) -> list[Learner]:
    """Arenas and optimizer of each phase."""
    trained: dict[int, str] = {}
    for phase in task.phases:
        for name, parameter in phase.parameters(model):
            if trained.setdefault(id(parameter), phase.name) != phase.name:
                raise ConfigError(
                    f"a parameter must be trained by one phase only ({name}: "
                    f"{trained[id(parameter)]}, {phase.name})",
                    where="task.name",
                    hint="add up the losses of both in one phase",
                )
    opens = openings(config, [name for name, _ in model.named_parameters()])
    learners = [
        _learner(config.optimizer.of(phase.name), phase, model, opens) for phase in task.phases
    ]
    names = [name for learner in learners for arena in learner.arenas for name in arena.places]
    for phase in task.phases:
        for pattern in unmatched(config.optimizer.of(phase.name).rates, names):
            raise ConfigError(
                f'rates must name parameters that are trained ("{pattern}" matches none)',
                where="optimizer.rates",
                hint=f"their names are such as {', '.join([*names[:2], names[-1]])}",
            )
    return learners


def _learner(
    section: PhaseOptimizer, phase: Phase, model: nn.Module, opens: Mapping[str, int]
) -> Learner:
    settings = Settings(
        lr=section.lr,
        momentum=section.momentum,
        nesterov=section.nesterov,
        betas=section.betas,
        eps=section.eps,
        weight_decay=section.weight_decay,
        alpha=section.alpha,
        centered=section.centered,
        trust_coefficient=section.trust_coefficient,
    )
    exempt = frozenset() if section.decay_norms_and_biases else norms_and_biases(model)
    grouping = Grouping(section.rates, section.depth_decay, exempt, opens)
    named = phase.parameters(model)
    return Learner(phase.name, named, section.name, settings, section.clip_norm, grouping)


def _feed(config: Config, device: torch.device) -> Feed:
    data = config.data
    return Feed(
        inputs=data.inputs,
        targets=targets_of(config),
        device=device,
        dtype=DTYPES[config.precision.dtype],
        scale=scale_of(config),
        micro_batch_size=data.micro_batch_size,
        half=HALVES.get(config.precision.autocast),
        windows=windows_of(config),
    )


def make_rates(config: Config, plan: Survey) -> LearningRate:
    """The learning rate over the run, as a factor on that of each phase."""
    section, data = config.learning_rate, config.data
    every = Every.parse(section.every)
    unit = plan.course.per_epoch if every.unit == "epochs" else 1
    shape = Shape(
        length=plan.num_batches,
        final=section.final_factor,
        every=every.count * unit,
        gamma=section.gamma,
        power=section.power,
        growth=section.cycle_growth,
        start=section.start_factor,
        peak=section.peak,
    )
    scale = batch_scale(section.scale, data.batch_size, section.base_batch_size)
    return LearningRate(section.name, plan.num_batches, section.warmup_steps, shape, scale)


def make_player(
    config: Config, comm: Comm, task: Task, model: nn.Module, feed: Feed
) -> Player | None:
    """Who plays the environment of the training data; None where there is none."""
    if not is_played(config):
        return None
    assert isinstance(task, Reinforcement)  # `resolve_fields` has checked it
    make = partial(environment_of, config, config.data.train)
    return Player(config, comm, task, model, feed, make)


def _playing(config: Config, task: Task, feed: Feed) -> Phase:
    """Evaluation by playing."""
    assert isinstance(task, Reinforcement)
    make = partial(environment_of, config, config.data.validation or config.data.train)
    return Playing(make, config.run.seed, task.max_steps, feed)


def _source(
    config: Config, kind: str, dataset: Dataset, order: Order | None, player: Player | None
) -> Source:
    """Where samples come from, for one of the data sets; without an order as they lie."""
    if player is not None:
        return Replayed(player, dataset) if kind == "train" else Episodes(dataset)
    data = config.data
    mixes = kind == "train" and mixing.is_on(config)
    return Loader(
        dataset,
        order or make_order("none", dataset.blocks(), 0, 1),
        needed_fields(config),
        prefetch_batches=data.prefetch_batches,
        cache_bytes=data.cache_bytes,
        skip_damage=data.on_error == "skip",
        partners=partial(partners, config.run.seed) if mixes else None,
    )
