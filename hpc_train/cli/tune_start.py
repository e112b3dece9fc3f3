"""`hpc-train tune STUDY.toml`: run the trials of a study, as a rank or by starting ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from hpc_train.cli.report import dry_run_option, json_option, print_json
from hpc_train.cli.run import check_injected, is_rank
from hpc_train.errors import EXIT_ENVIRONMENT, EXIT_FAILED
from hpc_train.stop import StopFlag
from hpc_train.tune import Ended, History, Prepared, Trial, check_same, prepare, replay


@click.command(name="start")
@click.argument("study")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("-n", "--ranks", type=click.IntRange(min=1), help="Start that many ranks here.")
@click.option("--inject", metavar="WHAT", multiple=True, help="Drills, as of `hpc-train run`.")
@dry_run_option
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    study: str,
    overrides: tuple[str, ...],
    ranks: int | None,
    inject: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run the trials of STUDY, a TOML file or the name of an example; a study that was begun
    before goes on.

    \b
    hpc-train tune digits-cnn-search -n 2
    hpc-train tune my-study.toml -n 4 study.trials=50
    """
    from hpc_train.recipes import find_study

    stop = ctx.with_resource(StopFlag().on_signal())
    source = find_study(study)
    check_injected(inject, ranks)
    if dry_run:
        return _show(prepare(source, overrides, ranks or 1), as_json=as_json)
    debug, verbose = (bool(ctx.find_root().params.get(name)) for name in ("debug", "verbose"))
    if ranks is not None and not is_rank():
        prepared = prepare(source, overrides, ranks)
        words = [study, *overrides, *(f"--inject={text}" for text in inject)]
        return _launch(prepared, words, ranks, as_json=as_json, verbose=verbose)
    return _search(source, overrides, inject, stop, as_json=as_json, debug=debug)


def _search(
    source: Path,
    overrides: tuple[str, ...],
    inject: tuple[str, ...],
    stop: StopFlag,
    *,
    as_json: bool,
    debug: bool,
) -> int:
    """Take part as one of the ranks; gives the exit code, the same on all."""
    from hpc_train.comm import connect
    from hpc_train.comm.exits import leave
    from hpc_train.launch.environment import separate_worlds, under_launcher
    from hpc_train.recovery import hooks
    from hpc_train.tune import run
    from hpc_train.world import together

    comm = connect()
    try:
        problem = separate_worlds(os.environ, comm.world.size)
        if problem is not None:
            launched = under_launcher(os.environ)
            if launched is not None and launched.rank:
                return EXIT_ENVIRONMENT  # each of them would print the same
            raise problem.error()
        prepared = together(comm, lambda: prepare(source, overrides, comm.world.size))
        disturb = hooks(check_injected(inject, None), comm.world.rank, comm.world.size)
        show = _Show(prepared, sys.stderr.isatty() or not as_json)
        if comm.world.is_coordinator:
            show.begin(comm.world.size)
        ended = run(prepared, comm, stop, hooks=tuple(disturb), tell=show)
    except BaseException as error:
        return leave(comm, error, debug=debug)
    if comm.world.is_coordinator:
        _conclude(prepared, ended, as_json=as_json)
    comm.depart(ended.exit_code)
    comm.barrier()
    return ended.exit_code


def _launch(
    prepared: Prepared, words: list[str], ranks: int, *, as_json: bool, verbose: bool
) -> int:
    """Start the ranks and watch over them; the journal says how it ended."""
    from hpc_train.launch import start_ranks

    program = [sys.executable, "-m", "hpc_train", *(["-v"] if verbose else []), "tune", *words]
    config = prepared.config({})
    code = start_ranks(
        [*program, *(["--json"] if as_json else [])],
        ranks,
        fault_tolerant=config.recovery.shrink and ranks > 1,
    )
    history = _begun(prepared)
    left = history.sessions and history.sessions[-1]["stop"] is not None
    if left and code in (0, 75):
        return code
    return code if 0 < code < 128 or code == 130 else EXIT_FAILED


def _show(prepared: Prepared, *, as_json: bool) -> int:
    """What a study would do."""
    study, history = prepared.study, _begun(prepared)
    check_same(prepared, history)
    facts = {
        "folder": str(prepared.folder),
        "finished": len(history.finished),
        "trials": prepared.total,
        "sampler": study.sampler.name,
        "pruner": study.pruner.name,
        "objectives": [one.metric for one in study.objective],
        "space": list(prepared.space.parameters),
        "known": len(prepared.known),
    }
    if as_json:
        print_json(facts)
    else:
        for name, value in facts.items():
            shown = ", ".join(value) if isinstance(value, list) else value
            click.echo(f"{name:<12}{shown}")
    return 0


def _begun(prepared: Prepared) -> History:
    """What the journal of a study holds so far."""
    from hpc_train.tune.journal import NAME, read

    return replay(read(prepared.folder / NAME))


class _Show:
    """Prints a line for each finished trial."""

    def __init__(self, prepared: Prepared, wanted: bool) -> None:
        self._prepared = prepared
        self._wanted = wanted

    def begin(self, ranks: int) -> None:
        """Say what begins, or goes on."""
        if self._wanted:
            prepared = self._prepared
            done = len(_begun(prepared).finished)
            known = f", {done} of them finished" if done else ""
            text = f"{prepared.folder}: {prepared.total} trials{known}; ranks: {ranks}"
            click.echo(text, err=True)

    def __call__(self, trial: Trial, history: History) -> None:
        if not self._wanted:
            return
        study = self._prepared.study
        names = zip(study.metrics, trial.values, strict=False)
        values = "  ".join(f"{name} {value:.4g}" for name, value in names)
        total = str(self._prepared.total)
        count = f"[{len(history.finished):>{len(total)}}/{total}]"
        place = f"{count} {f'trial {trial.number}':<{6 + len(total)}} {trial.state:<8}"
        text = f"{place}  {values or trial.reason}  {params_text(trial.params)}"
        best = history.best(study.directions)
        if trial in (best[:1] if len(study.objective) == 1 else best):
            text += "  <- best so far" if len(study.objective) == 1 else "  <- none dominates it"
        click.echo(text, err=True)


def _conclude(prepared: Prepared, ended: Ended, *, as_json: bool) -> None:
    """Say what was found."""
    history, status = _begun(prepared), ended.status
    states = [trial.state for trial in history.trials]
    counts = {state: states.count(state) for state in ("complete", "pruned", "failed", "waiting")}
    best = history.best(prepared.study.directions)[:5]
    if as_json:
        rows = [{"trial": t.number, "values": t.values, "params": t.params} for t in best]
        folder = str(prepared.folder)
        facts = {"status": status, "folder": folder, "trials": counts, "ranks_lost": ended.lost}
        print_json({**facts, "best": rows})
        return
    told = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    click.echo(f"{'paused' if status != 'done' else 'done'}: {told}; {prepared.folder}")
    if ended.lost:
        click.echo(f"ranks that died, and that the study went on without: {ended.lost}")
    for trial in best:
        values = ", ".join(f"{value:.5g}" for value in trial.values)
        click.echo(f"  trial {trial.number:>4}  {values:<12}  {params_text(trial.params)}")
    if best:
        click.echo(f"train the best again: hpc-train run --from-trial {prepared.folder}:best")
    if status != "done":
        click.echo("go on: start the same command again")


def params_text(params: dict[str, object]) -> str:
    """A point in one line."""
    return " ".join(
        f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in params.items()
    )
