"""The one place that knows every class: from a configuration and connected ranks to all parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from hpc_train.comm import Comm
from hpc_train.config import Config
from hpc_train.data import (
    Dataset,
    Loader,
    NodeCache,
    Order,
    Stage,
    batch_memory,
    make_order,
    partners,
)
from hpc_train.errors import HpcTrainError
from hpc_train.optim import LearningRate
from hpc_train.schedule import Reserve, Scheduler, Situation, find_policy
from hpc_train.strategies import Layout, Learner, Strategy, make_strategy
from hpc_train.tasks import Phase, Reinforcement, Task, sums_of
from hpc_train.train.datasets import make_stages, open_alone, open_datasets, share_node
from hpc_train.train.device import ready_device, set_threads
from hpc_train.train.episodes import Episodes, Playing
from hpc_train.train.feed import Feed, normal_of
from hpc_train.train.graphs import Graphs, make_graphs
from hpc_train.train.graphs import check as check_graphs
from hpc_train.train.learning import make_learners, make_rates, make_task
from hpc_train.train.network import bind_model, make_network
from hpc_train.train.options import make_options
from hpc_train.train.played import environment_of, is_played, resolve_fields
from hpc_train.train.player import Player, Replayed
from hpc_train.train.rereading import rereading
from hpc_train.train.sampling import training_orders
from hpc_train.train.source import Source
from hpc_train.train.survey import (
    Survey,
    needed_fields,
    normal_inputs,
    scale_of,
    survey,
    targets_of,
    windows_of,
)
from hpc_train.train.technique import Technique, Techniques
from hpc_train.train.techniques import Needs, make_techniques, mixing
from hpc_train.train.techniques.augmentation import pipelines
from hpc_train.train.upload import Uploads, pinned
from hpc_train.world import World, together

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
        graphs: what is recorded of forward and backward; None where nothing is.
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
    graphs: Graphs | None = None

    def close(self) -> None:
        """Join all threads, close all files, and let this rank have a model of its own."""
        for learner in self.learners:
            for arena in learner.arenas:
                arena.part()
        for loader in self.loaders.values():
            loader.close()
        with suppress(HpcTrainError):  # of a thread that waits for lost ranks, told elsewhere
            self.strategy.close()


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
    plan = together(comm, lambda: survey(config, datasets, comm.num_members))
    device = own.device or together(comm, lambda: ready_device(config, comm))
    threads = set_threads(config.device.threads, comm, config.schedule.reserve)
    _warn(config, plan, datasets["train"], comm.world)
    config = _resolved(config, plan)
    feed = _feed(config, datasets["train"], device)
    task = together(comm, lambda: make_task(config, plan.num_outputs))
    network = together(comm, lambda: make_network(config, plan, model, feed, datasets["train"]))
    learners = together(comm, lambda: make_learners(config, task, network))
    scheduler = make_scheduler(config, comm.members, plan.num_batches)
    layout = make_layout(task, scheduler, comm.world.size)
    strategy = make_strategy(
        config.strategy.name, comm, network, learners, layout, scheduler, make_options(config)
    )
    orders = together(comm, lambda: training_orders(config, datasets["train"], plan.window))
    player = together(comm, lambda: make_player(config, comm, task, network, feed))
    needs = Needs(config, comm, plan, network, learners, task, feed, datasets, player)
    techniques = together(comm, lambda: make_techniques(needs, own.techniques))
    return Parts(
        config=config,
        comm=comm,
        survey=plan,
        device=device,
        threads=threads,
        loaders=_sources(config, comm, datasets, orders, player, device),
        feed=feed,
        model=network,
        task=task,
        evaluation=task.phases[0] if player is None else _playing(config, task, feed),
        learners=learners,
        scheduler=scheduler,
        strategy=strategy,
        rates=make_rates(config, plan),
        techniques=techniques,
        graphs=together(comm, lambda: make_graphs(config, task, device)),
    )


def _warn(config: Config, plan: Survey, train: Dataset, world: World) -> None:
    """Tell what is allowed and yet strange, or slow, on rank 0."""
    if world.is_coordinator:
        for warning in (*plan.warnings, *rereading(config, train, plan.window, world.size)):
            logger.warning("%s", warning)


def _resolved(config: Config, plan: Survey) -> Config:
    """The configuration with what the survey found in place of "auto"."""
    return config.model_copy(
        update={"data": config.data.model_copy(update={"shuffle_window": plan.window})}
    )


def preflight(config: Config, num_ranks: int) -> Survey:
    """Check all that can be checked without ranks: data, plan, task and model builder.

    Raises:
        HpcTrainError: for whatever would stop the run at its beginning.
    """
    config = resolve_fields(config)
    plan = survey(config, open_alone(config), num_ranks)
    task = make_task(config, plan.num_outputs)
    if config.device.cuda_graphs:
        check_graphs(config, task)
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
        config.data.batch_size,
        len(members),
        shares,
        config.data.micro_batch_size or 1,
        whole=config.device.compile or config.device.cuda_graphs,
    )
    policy = find_policy(section.policy)
    reserve = None
    if policy.reserves and len(members) > 1:
        reserve = Reserve(section.reserve_share, situation.unit, config.data.micro_batch_size)
    return Scheduler(policy, situation, num_batches, reserve)


def make_layout(task: Task, scheduler: Scheduler, num_ranks: int) -> Layout:
    """Where what ranks tell each other lies in the tally."""
    return Layout(list(sums_of(task)), num_ranks, claims=scheduler.reserve is not None)


def _feed(config: Config, train: Dataset, device: torch.device) -> Feed:
    data, dtype = config.data, DTYPES[config.precision.dtype]
    return Feed(
        inputs=data.inputs,
        targets=targets_of(config),
        device=device,
        dtype=dtype,
        scale=scale_of(config),
        micro_batch_size=data.micro_batch_size,
        half=HALVES.get(config.precision.autocast),
        windows=windows_of(config),
        normal=normal_of(train, normal_inputs(config, train), device, dtype),
    )


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


def _sources(
    config: Config,
    comm: Comm,
    datasets: Mapping[str, Dataset],
    orders: Mapping[str, Order],
    player: Player | None,
    device: torch.device,
) -> dict[str, Source]:
    """Where samples come from, by data set; collective."""
    if player is not None:
        return {
            k: Replayed(player, d) if k == "train" else Episodes(d) for k, d in datasets.items()
        }
    shared = {"train": share_node(config, comm, datasets["train"])}
    stages = together(comm, lambda: make_stages(config, datasets))
    return {
        kind: _loader(config, kind, d, orders.get(kind), shared.get(kind), stages.get(kind), device)
        for kind, d in datasets.items()
    }


def _loader(
    config: Config,
    kind: str,
    dataset: Dataset,
    order: Order | None,
    shared: NodeCache | None,
    stage: Stage | None,
    device: torch.device,
) -> Loader:
    """The loader of one of the data sets; without an order samples come as they lie."""
    is_gpu = device.type == "cuda"
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
        node_cache=shared,
        stage=stage,
        allocate=pinned if is_gpu else batch_memory,
        deliver=Uploads(device) if is_gpu else None,
    )
