"""`hpc-train export RUN OUT`: a trained network for those who do not have this package."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_train.cli.apply import checkpoint_option
from hpc_train.errors import UsageError


@click.command(name="export")
@click.argument("run")
@click.argument("out", type=click.Path(path_type=Path))
@checkpoint_option
def command(run: str, out: Path, checkpoint: str) -> None:
    """Write the network of RUN so that plain PyTorch loads it, averaged weights where it has them.

    OUT.pt2 is torch.export's format, OUT.pt TorchScript, OUT.onnx ONNX (with the extra onnx); a
    name without a suffix makes a folder: model.safetensors, config.toml, and model.json, which
    says what inputs are. All take inputs as the network got them, times data.scale, or normalized.

    \b
    hpc-train export latest model.pt2
    hpc-train export latest weights --checkpoint best
    """
    from hpc_train.train.ensemble import open_model
    from hpc_train.train.exports import export, find_format
    from hpc_train.train.exports.folder import example_of, write
    from hpc_train.train.rundir import find_run

    if out.suffix:
        find_format(out)
    folder = find_run(run, None)
    trained = open_model(folder, checkpoint)
    if not out.suffix:
        if out.exists():
            raise UsageError("there is something already", where=str(out), hint="choose another")
        write(trained, folder, out)
    else:
        export(trained.model, example_of(trained), out)
    click.echo(f"{out}  step {trained.step}")
