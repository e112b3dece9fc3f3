"""`hpc-train compress RUN`: a smaller network of what a run has learned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hpc_train.cli.table import aligned

if TYPE_CHECKING:
    from hpc_train.train.compressing import Report

PRUNE = ["none", "magnitude", "saliency", "sensitivity", "pattern", "channels"]
QUANTIZE = ["none", "dynamic", "static"]


@click.command(name="compress")
@click.argument("run")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where model.pt and report.json go; RUN/compressed by default.",
)
@click.option(
    "--prune", type=click.Choice(PRUNE), default="none", show_default=True, help="At once, now."
)
@click.option(
    "--amount",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Part of the weights that goes; for channels, of the operations.",
)
@click.option(
    "--quantize",
    type=click.Choice(QUANTIZE),
    help="int8 numbers; static by default if the run was trained for it, else none.",
)
@click.option("--seconds", type=click.FloatRange(min=0), default=1.0, help="Per latency.")
def command(
    run: str, out: Path | None, prune: str, amount: float, quantize: str | None, seconds: float
) -> None:
    """Write the network of RUN to model.pt, without channels that are zero, and what it gained.

    Plain PyTorch loads it: torch.jit.load("model.pt"). What [compress] did in training is kept;
    --prune takes more at once, without training after it; sensitivity measures each layer first.

    \b
    hpc-train compress latest
    hpc-train compress runs/mnist-cnn-20260101-120000-ab12 --prune channels --quantize static
    """
    from hpc_train.train.compressing import Plain, Wish, compress
    from hpc_train.train.rundir import find_run, writing

    folder = find_run(run, None)
    out = out or folder / "compressed"
    plain = Plain(folder)
    wish = Wish(prune, amount, quantize or plain.quantize, seconds)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        report = compress(plain, wish, out / "model.pt")
        (out / "report.json").write_text(json.dumps(report.json(), indent=2) + "\n")
    for line in lines(report):
        click.echo(line)
    click.echo(f'\n{out / "model.pt"}  torch.jit.load("{out / "model.pt"}")')


def lines(report: Report) -> list[str]:
    """What compressing gained, as a table: before, after, and the one over the other."""
    before, after = report.before, report.after
    rows = [["", "before", "after", "ratio"]]
    for title, one, other, text in (
        ("size (KiB)", before.size_bytes / 1024, after.size_bytes / 1024, "{:,.1f}"),
        ("parameters", before.parameters, after.parameters, "{:,}"),
        ("not zero", before.nonzero, after.nonzero, "{:,}"),
        ("MFLOPs", before.flops / 1e6, after.flops / 1e6, "{:,.3f}"),
    ):
        rows.append([title, text.format(one), text.format(other), f"{other / one:.3f}"])
    for size, one in before.latency_ms.items():
        other = after.latency_ms[size]
        title = f"ms, batch {size}"
        rows.append([title, f"{one:.3f}", f"{other:.3f}", f"{other / one:.3f}"])
    for name, one in report.metrics_before.items():
        other = report.metrics_after[name]
        rows.append([f"{report.data} {name}", f"{one:.4f}", f"{other:.4f}", f"{other - one:+.4f}"])
    if report.scan is None:
        return aligned(rows)
    return [*aligned(report.scan), "", *aligned(rows)]
