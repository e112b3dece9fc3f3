"""`hpc-train run CONFIG`: train, as one of the ranks, or by starting them."""

from __future__ import annotations

import dataclasses
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_train import recipes
from hpc_train.cli.autopsy import first_to_fail
from hpc_train.cli.plan import show_plan
from hpc_train.cli.report import dry_run_option, json_option, print_json
from hpc_train.cli.table import result_lines
from hpc_train.config import Loaded, load
from hpc_train.errors import EXIT_ENVIRONMENT, EXIT_FAILED, SetupError, UsageError
from hpc_train.stop import StopFlag

if TYPE_CHECKING:
    from hpc_train.recovery import Injection


logger = logging.getLogger(__name__)


@click.command(name="run")
@click.argument("config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("-n", "--ranks", type=click.IntRange(min=1), help="Start that many ranks here.")
@click.option(
    "--resume",
    metavar="[RUN|latest]",
    is_flag=False,
    flag_value="latest",
    help="Go on with an earlier run, from its newest checkpoint.",
)
@click.option(
    "--from-trial",
    metavar="STUDY:ID",
    help="Train a trial of a study again, by its number, or the best one.",
)
@click.option(
    "--inject",
    metavar="WHAT",
    multiple=True,
    help='Drills: "slow:2=3x", "slow:1=2x@100-200", "jitter:10%"; "kill:1@50", "hang:1@40:data", '
    'and so stop, exit, raise; "preempt@80", "disk-full@ckpt2"; at random times '
    '"kill:any@30s:seed=1".',
)
@dry_run_option
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --dry-run: draw the curve of the learning rate into this file.",
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    config: str | None,
    overrides: tuple[str, ...],
    ranks: int | None,
    resume: str | None,
    from_trial: str | None,
    inject: tuple[str, ...],
    dry_run: bool,
    plot: Path | None,
    as_json: bool,
) -> int:
    """Train what CONFIG describes: a TOML file, or the name of a recipe.

    Outside MPI, -n starts the ranks with the launcher that fits the MPI library. Under mpirun,
    mpiexec or srun this is simply one of the ranks.

    \b
    hpc-train run digits-cnn -n 2
    hpc-train run my.toml optimizer.lr=0.01 run.epochs=20
    mpirun -n 4 hpc-train run my.toml
    hpc-train run --resume latest -n 2
    """
    # from here on: before this is listened to, the signal ends a process
    stop = ctx.with_resource(StopFlag().on_signal())
    if config is not None and "=" in config and not Path(config).exists():
        overrides, config = (config, *overrides), None
    if from_trial is not None:
        config, overrides = trial(from_trial, config, overrides)
    request = dataclasses.replace(resolve(config, overrides, resume), inject=inject)
    check_injected(inject, ranks)
    if dry_run:
        return show_plan(request.loaded, ranks or 1, as_json=as_json, plot=plot)
    if plot is not None:
        raise UsageError("--plot draws what --dry-run plans", hint="add --dry-run")
    debug, verbose = (bool(ctx.find_root().params.get(name)) for name in ("debug", "verbose"))
    if ranks is not None and not is_rank():
        return launch(request, ranks, stop, as_json=as_json, verbose=verbose)
    return train(request, stop, as_json=as_json, debug=debug)


def trial(name: str, config: str | None, overrides: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The configuration of a trial of a study, and its point as overrides before others."""
    from hpc_train.tune import find_trial

    if config is not None:
        raise UsageError(
            f'a trial has a configuration of its own ("{config}")',
            hint="change keys of it with key.sub=value",
        )
    source, point = find_trial(name)
    return str(source), (*point, *overrides)


@dataclass(frozen=True)
class Request:
    """What shall be trained.

    Attributes:
        source: the configuration file.
        overrides: `key.sub=value` on top of it.
        loaded: what both say.
        earlier: the run directory to go on with; None for a new run.
        inject: what to inject, as `hpc_train.recovery.parse` reads it.
    """

    source: Path
    overrides: tuple[str, ...]
    loaded: Loaded
    earlier: Path | None = None
    inject: tuple[str, ...] = ()


def resolve(config: str | None, overrides: tuple[str, ...], resume: str | None) -> Request:
    """The configuration that a command line means, and the run to go on with, if any."""
    from hpc_train.train.rundir import find_run

    source = recipes.find(config) if config is not None else None
    if resume is None:
        if source is None:
            raise UsageError(
                "a configuration is needed",
                hint="hpc-train recipes lists examples, hpc-train config init writes a new one",
            )
        return Request(source, overrides, load(source, overrides))
    name = load(source, overrides).config.run.name if source is not None else None
    earlier = find_run(resume, name)
    source = source or earlier / "config.toml"
    return Request(source, overrides, load(source, overrides), earlier)


def check_injected(inject: Sequence[str], ranks: int | None) -> list[Injection]:
    """What a command line asks to inject; `ranks` is None if it is not known yet."""
    from hpc_train.recovery import check_ranks, parse

    injections = [parse(text) for text in inject]
    if ranks is not None:
        check_ranks(injections, ranks)
    return injections


def is_rank() -> bool:
    """Whether a launcher started this process as one of its ranks."""
    from hpc_train.launch.environment import under_launcher

    return under_launcher(os.environ) is not None


def train(request: Request, stop: StopFlag, *, as_json: bool, debug: bool) -> int:
    """Train as one of the ranks, until `stop` is raised; gives the exit code, the same on all."""
    from hpc_train.comm import connect
    from hpc_train.comm.exits import leave
    from hpc_train.launch.environment import separate_worlds, under_launcher
    from hpc_train.recovery import hooks
    from hpc_train.train import Trainer
    from hpc_train.world import on_coordinator

    comm = connect()
    try:
        problem = separate_worlds(os.environ, comm.world.size)
        if problem is not None:
            launched = under_launcher(os.environ)
            if launched is not None and launched.rank:
                return EXIT_ENVIRONMENT  # each of them would print the same
            raise problem.error()
        injections = check_injected(request.inject, None)
        if comm.invitation is None:
            on_coordinator(comm, lambda: len(check_injected(request.inject, comm.world.size)))
        deaths = 0 if comm.invitation is None else comm.invitation.deaths
        trainer = Trainer(
            config=request.loaded.config,
            comm=comm,
            stream=sys.stderr if as_json else None,
            hooks=hooks(injections, comm.number, comm.num_members, again=deaths),
            stop=stop,
        )
        result = trainer.fit(resume=request.earlier)
    except BaseException as error:
        return leave(comm, error, debug=debug)
    if comm.world.is_coordinator:
        if as_json:
            print_json(vars(result))
        else:
            click.echo("\n".join(result_lines(result)))
    comm.depart(result.exit_code)
    comm.barrier()
    return result.exit_code


def launch(request: Request, ranks: int, stop: StopFlag, *, as_json: bool, verbose: bool) -> int:
    """Check everything, then start the ranks and watch over them; gives the run's exit code."""
    from hpc_train.config.schema import parse_seconds
    from hpc_train.launch.restart import Limits, run_attempts
    from hpc_train.recovery.faults import is_once
    from hpc_train.train.build import preflight
    from hpc_train.train.rundir import new_run_dir
    from hpc_train.train.walltime import wall_seconds

    config = request.loaded.config
    preflight(config, ranks)
    folder = request.earlier or new_run_dir(config)

    def program(restarts: int) -> list[str]:
        resume = request.earlier or (restarts and (folder / "config.toml").is_file())
        argv = [sys.executable, "-m", "hpc_train", *(["-v"] if verbose else []), "run"]
        argv += [str(request.source), *request.overrides]
        argv += [f"--resume={folder}" if resume else f"run.dir={folder}"]
        argv += ["--json"] if as_json else []
        # what was to happen in one batch has happened; what happens at random goes on
        once = [text for text in request.inject if restarts and is_once(text)]
        return argv + [f"--inject={text}" for text in request.inject if text not in once]

    section = config.recovery
    code, result = run_attempts(
        program,
        ranks,
        folder,
        Limits(section.max_restarts, parse_seconds(section.restart_period) or 0.0),
        stop,
        wall_seconds=wall_seconds(config),
        fault_tolerant=section.shrink and ranks > 1,
        least=section.min_ranks,
    )
    if result is not None and result.status in ("done", "preempted", "failed"):
        return code if code == 130 else result.exit_code
    if code != 130 and (text := first_to_fail(folder)):
        logger.error("%s", text)
    if code == 0:
        raise SetupError(
            "the launcher ended without a result of the run",
            where=str(folder),
            hint="look into the logs there, and at hpc-train doctor",
        )
    return code if 0 < code < 128 or code == 130 else EXIT_FAILED
