"""`hpc-train evaluate RUN DATA`: how good a trained model is on a data set."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from hpc_train.cli.apply import checkpoint_option, on_ranks, ranks_option
from hpc_train.cli.report import json_option, print_json

if TYPE_CHECKING:
    from hpc_train.train.inference import Applied


@click.command(name="evaluate")
@click.argument("run")
@click.argument("data")
@checkpoint_option
@ranks_option
@json_option
def command(run: str, data: str, checkpoint: str, ranks: int | None, as_json: bool) -> int:
    """Measure loss and metrics of RUN on DATA, over every sample once.

    RUN is a run directory, its name, or latest; DATA a data set, as data.test names one. Averaged
    weights are taken where the run has them; an ensemble gives its averaged prediction.

    \b
    hpc-train evaluate latest builtin:digits/test
    hpc-train evaluate runs/digits-cnn-20260101-120000-ab12 mine -n 2 --checkpoint best
    """

    def work(applied: Applied) -> Callable[[], None]:
        """Measure on all ranks; what rank 0 shows of it."""
        metrics = applied.evaluate()

        def show() -> None:
            facts = {"run": run, "data": data, "step": applied.step, "samples": applied.num_samples}
            if as_json:
                print_json({**facts, "metrics": metrics})
                return
            told = "  ".join(f"{name} {value:.6g}" for name, value in metrics.items())
            click.echo(f"{data}  {applied.num_samples} samples, step {applied.step}  {told}")

        return show

    words = ["evaluate", run, data, f"--checkpoint={checkpoint}", *["--json"] * as_json]
    return on_ranks(words, ranks, run, data, checkpoint, work)
