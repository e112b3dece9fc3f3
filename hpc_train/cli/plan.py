"""`hpc-train run --dry-run`: the resolved configuration and what a run would do."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hpc_train.cli.report import print_json
from hpc_train.config import Loaded, to_toml

if TYPE_CHECKING:
    from hpc_train.config import Config
    from hpc_train.observe.curve import Curve
    from hpc_train.train.survey import Survey


def show_plan(loaded: Loaded, ranks: int, *, as_json: bool, plot: Path | None = None) -> int:
    """Print what a run would do; draw the curve of its learning rate into `plot`, if there is one.

    Raises:
        HpcTrainError: for whatever would stop the run at its beginning.
    """
    from hpc_train.observe.curve import check_picture, draw
    from hpc_train.train.build import preflight

    config = loaded.config
    if plot is not None:
        check_picture(plot)
    plan = preflight(config, ranks)
    rates = _rates(config, plan)
    facts = _facts(config, plan, ranks)
    if as_json:
        facts["learning_rate"] = {"batches": rates.batches, "values": rates.values}
        print_json({"config": config.model_dump(mode="json"), "plan": facts})
    else:
        click.echo(to_toml(config, loaded.origins))
        click.echo("# plan")
        for name, value in facts.items():
            if name != "warnings":
                click.echo(f"# {name.replace('_', ' '):<18} {value}")
        click.echo("\n".join(_rate_lines(config, rates)))
        for warning in plan.warnings:
            click.echo(f"# warning: {warning}")
    if plot is not None:
        title = f"{config.run.name}: {config.learning_rate.name}"
        draw(rates, plot, title=title, label="learning rate")
        click.echo(f"# drawn in {plot}", err=as_json)
    return 0


def _facts(config: Config, plan: Survey, ranks: int) -> dict[str, Any]:
    return {
        "ranks": ranks,
        "device": config.device.name,
        "shares": list(plan.plan.counts),
        "samples": plan.course.num_samples,
        "batches_per_epoch": plan.course.per_epoch,
        "steps": plan.num_batches,
        "shuffle_window": plan.window,
        "warnings": list(plan.warnings),
    }


def _rates(config: Config, plan: Survey) -> Curve:
    """The learning rate over the run, as `[optimizer]` and its curve say."""
    from hpc_train.observe.curve import Curve
    from hpc_train.train.learning import make_rates

    rates = make_rates(config, plan)
    return Curve.sample(lambda batch: config.optimizer.lr * rates.factor(batch), plan.num_batches)


def _rate_lines(config: Config, rates: Curve) -> list[str]:
    from hpc_train.observe.curve import sparkline

    values, section = rates.values, config.learning_rate
    lines = [
        f"# {'learning rate':<18} {sparkline(values, encoding=sys.stdout.encoding)}",
        f"# {'':<18} {values[0]:.3g} at the start, {max(values):.3g} at most, "
        f"{values[-1]:.3g} at the end",
    ]
    if section.name == "plateau":
        lines.append(
            f"# {'':<18} times {section.gamma:g} after {section.patience + 1} evaluations without "
            f"a better {section.metric.partition(' ')[2]}"
        )
    return lines
