"""Ensembles: k networks with seeds of their own, and their averaged prediction.

    ranks    0 1 | 2 3 | 4 5         as many groups as members, if there are ranks enough
    members   0  |  1  |  2          a whole run each, in member-00, member-01, ...
              3  |  4                one after another, if not
    all ranks together               evaluate the average

Hansen and Salamon, "Neural network ensembles", PAMI 1990. A member is the same on any number of
ranks, so the ensemble is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from hpc_train.comm import Comm
from hpc_train.config import Config, load
from hpc_train.errors import EXIT_DONE, EXIT_REQUEUE, ConfigError
from hpc_train.observe import Result, read_result
from hpc_train.philox import derive
from hpc_train.train.build import Parts, build
from hpc_train.train.evaluation import evaluate
from hpc_train.train.trained import Trained, open_run
from hpc_train.world import agree, on_coordinator, together

logger = logging.getLogger(__name__)

STREAM = 21  # of the members' seeds

# trains a member on a group of ranks; goes on with an earlier run if the last argument says so
Fit = Callable[[Config, Comm, bool], Result]


class Average(nn.Module):
    """A model that averages the outputs of others, as its task says.

    Args:
        members: at least one.
        combine: from outputs, shape (members, n, ...), to one of shape (n, ...).
    """

    def __init__(
        self, members: Sequence[nn.Module], combine: Callable[[torch.Tensor], torch.Tensor]
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._combine = combine

    def forward(self, inputs: object) -> torch.Tensor:
        """What the members make of the inputs, averaged."""
        return self._combine(torch.stack([member(inputs) for member in self.members]))


def group_of(rank: int, size: int, members: int) -> tuple[int, int]:
    """The group of a rank, and how many groups there are; sizes differ by one at most."""
    groups = min(size, members)
    return rank * groups // size, groups


def member_config(config: Config, folder: Path, member: int, shares: list[float] | None) -> Config:
    """The run of one member: a seed and a directory of its own."""
    run = {
        "seed": derive(config.run.seed, STREAM, member),
        "dir": str(folder / f"member-{member:02d}"),
    }
    return config.model_copy(
        update={
            "run": config.run.model_copy(update=run),
            "ensemble": config.ensemble.model_copy(update={"members": 1}),
            "schedule": config.schedule.model_copy(update={"shares": shares}),
        }
    )


def train(config: Config, comm: Comm, folder: Path, fit: Fit) -> tuple[Result, nn.Module | None]:
    """Train all members that are not done yet, and evaluate their average.

    Args:
        config: of the ensemble.
        comm: all ranks.
        folder: of the ensemble; the members' lie in it.
        fit: trains one member.

    Returns:
        How it ended, and the average; no such model if the run was asked to save and leave.

    Raises:
        RankError: on every rank, when the groups that did not fail are done.
    """
    started = time.perf_counter()
    members, world = config.ensemble.members, comm.world
    group, groups = group_of(world.rank, world.size, members)
    part = comm if groups == 1 else comm.split(group)
    shares = config.schedule.shares
    if shares is not None:
        ranks = range(world.size)
        own = [rank for rank in ranks if group_of(rank, world.size, members)[0] == group]
        shares = [shares[rank] for rank in own] if len(shares) == world.size else shares
    results: dict[int, Result] = {}
    error: Exception | None = None
    try:
        for member in range(group, members, groups):
            one = member_config(config, folder, member, shares)
            results[member] = _train_member(one, part, fit)
            if results[member].status != "done":
                break
    except Exception as raised:
        error = raised
    agree(comm, error)
    told = comm.gather({str(m): [r.status, r.step, r.metrics] for m, r in results.items()})
    found = {int(m): entry for rank in told for m, entry in rank.items()}
    seconds = time.perf_counter() - started
    if len(found) < members or any(status != "done" for status, _, _ in found.values()):
        step = max(step for _, step, _ in found.values())
        return Result("preempted", EXIT_REQUEUE, step, {}, str(folder), seconds), None
    model, metrics = _evaluate(config, comm, folder)
    for member in range(members):
        for kind, values in found[member][2].items():
            metrics[f"{kind} of member {member}"] = values
    step = sum(step for _, step, _ in found.values())
    seconds = time.perf_counter() - started
    return Result("done", EXIT_DONE, step, metrics, str(folder), seconds), model


def _train_member(config: Config, comm: Comm, fit: Fit) -> Result:
    """The result of a member: the one that lies there, or that of training it, further if begun."""
    folder = Path(str(config.run.dir))

    def state() -> str:
        earlier = read_result(folder)
        if earlier is not None and earlier.status == "done":
            return "done"
        return "begun" if (folder / "config.toml").is_file() else "new"

    known = on_coordinator(comm, state)
    if known == "done":
        result = together(comm, lambda: read_result(folder))
        assert result is not None
        return result
    return fit(config, comm, known == "begun")


def _evaluate(
    config: Config, comm: Comm, folder: Path
) -> tuple[nn.Module, dict[str, dict[str, float]]]:
    """The average of all members, and its metrics on the data sets beside the training data."""
    # each sample is read once: neither copies nor a cache of the node would pay
    data = config.data.model_copy(update={"stage": None, "node_cache": False})
    config = config.model_copy(update={"data": data})
    parts = build(member_config(config, folder, 0, None), comm)
    try:
        model = together(comm, lambda: _average(parts, config, folder))
        whole = replace(parts, model=model)
        kinds = [kind for kind in parts.loaders if kind != "train"]
        return model, {kind: evaluate(whole, kind) for kind in kinds}
    finally:
        parts.close()


def _average(parts: Parts, config: Config, folder: Path) -> Average:
    combine = getattr(parts.task, "combine", None)
    if combine is None:
        raise ConfigError(
            f'predictions of task "{config.task.name}" cannot be averaged',
            where="ensemble.members",
            hint="give the task a method combine(outputs)",
        )
    runs = [folder / f"member-{member:02d}" for member in range(config.ensemble.members)]
    members = [open_run(run).model.to(parts.device, parts.feed.dtype) for run in runs]
    return Average(members, combine).eval()


def open_model(folder: Path, which: str = "last") -> Trained:
    """The model of a run, or the average of an ensemble's, on the CPU, in evaluation mode.

    Args:
        folder: the run directory, or that of an ensemble.
        which: the checkpoint: "last", "best" or "step-N".

    Raises:
        ConfigError, CheckpointError: if there is none.
    """
    file = folder / "config.toml"
    count = load(file).config.ensemble.members if file.is_file() else 1
    if count == 1:
        return open_run(folder, which)
    members = [open_run(folder / f"member-{member:02d}", which) for member in range(count)]
    combine = members[0].task.combine  # type: ignore[attr-defined]  # it was trained with it
    model = Average([member.model for member in members], combine).eval()
    return replace(members[0], model=model, step=max(member.step for member in members))
