"""What is learned and how fast: the task, its learners and the learning rate of a configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from hpc_train.config import Config
from hpc_train.config.schema.optimizer import PhaseOptimizer
from hpc_train.errors import ConfigError, unknown
from hpc_train.optim import Grouping, LearningRate, Settings, Shape, batch_scale
from hpc_train.optim.groups import norms_and_biases, unmatched
from hpc_train.plan import Every
from hpc_train.strategies import Learner
from hpc_train.tasks import TASKS, Phase, Task
from hpc_train.train.names import bind, find
from hpc_train.train.survey import Survey
from hpc_train.train.techniques.transfer import openings
from hpc_train.train.wanted import check_wanted


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
