"""`hpc-train tune report STUDY`: tables and plots of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from hpc_train.cli.report import json_option, print_json
from hpc_train.cli.tune_start import params_text
from hpc_train.errors import ConfigError, HpcTrainError
from hpc_train.tune import find_study_folder, read_study
from hpc_train.tune.page import page
from hpc_train.tune.report import report


@click.command(name="report")
@click.argument("study")
@click.option(
    "--html", "target", metavar="FILE", help="Default: report.html in the study's folder."
)
@json_option
def command(study: str, target: str | None, as_json: bool) -> int:
    """Show what STUDY (the folder of one, or its name in `studies`) found so far.

    Writes one HTML page with all plots; with --json prints all figures instead.
    """
    folder = find_study_folder(study)
    history = read_study(folder)
    if history.digest is None:
        raise ConfigError("the study has not begun", where=str(folder))
    told = report(history)
    if as_json:
        print_json(told)
        return 0
    path = Path(target) if target is not None else folder / "report.html"
    try:
        path.write_text(page(folder.name, told), encoding="utf-8")
    except OSError as error:
        raise HpcTrainError(f"cannot write it: {error.strerror}", where=str(path)) from error
    _show(told)
    click.echo(f"plots: {path}")
    return 0


def _show(told: dict[str, Any]) -> None:
    """The short form, for a terminal."""
    counts = ", ".join(f"{count} {state}" for state, count in told["counts"].items())
    click.echo(f"{told['status']}: {counts}")
    for one in told["best"]:
        values = "  ".join(
            f"{name} {value:.5g}"
            for name, value in zip(told["metrics"], one["values"], strict=True)
        )
        click.echo(f"  trial {one['trial']:>4}  {values}  {params_text(one['params'])}")
    if told["importance"]:
        shares = ", ".join(f"{key} {value:.2f}" for key, value in told["importance"].items())
        click.echo(f"importance: {shares}")
    if told["utilisation"] is not None:
        click.echo(f"ranks busy: {told['utilisation']:.1%}")
