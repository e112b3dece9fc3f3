"""`hpc-train demo`: the shortest way to see all of it work."""

from __future__ import annotations

import click

from hpc_train import recipes
from hpc_train.cli.run import Request, launch
from hpc_train.config import load
from hpc_train.errors import EXIT_DONE, HpcTrainError
from hpc_train.stop import StopFlag

RECIPE = "digits-cnn"
EXPECTED_ACCURACY = 0.97


@click.command(name="demo")
@click.option("-n", "--ranks", type=click.IntRange(min=1), default=2, show_default=True)
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
def command(ranks: int, overrides: tuple[str, ...]) -> int:
    """Train a small CNN on handwritten digits, on two ranks; takes less than a minute."""
    from hpc_train.observe import read_result
    from hpc_train.train.rundir import new_run_dir

    source = recipes.find(RECIPE)
    folder = new_run_dir(load(source, overrides).config)
    settings = (*overrides, f"run.dir={folder}")
    request = Request(source, settings, load(source, settings))
    click.echo(f"hpc-train run {RECIPE} -n {ranks}: 1,797 handwritten digits, test data held out\n")
    code = launch(request, ranks, StopFlag(), as_json=False, verbose=False)
    result = read_result(folder)
    if code != EXIT_DONE or result is None:
        return code
    accuracy = result.metrics["test"]["accuracy"]
    if accuracy < EXPECTED_ACCURACY and not overrides:
        raise HpcTrainError(
            f"test accuracy must reach {EXPECTED_ACCURACY} (accuracy: {accuracy:.4f})",
            hint="look at metrics.jsonl and logs in the run directory",
        )
    click.echo(
        "\nall is well. what next?\n"
        "  hpc-train recipes                  more examples\n"
        "  hpc-train config init my.toml      a configuration of your own\n"
        "  hpc-train data import --help       your data as HDF5 shards\n"
        "  hpc-train doctor                   is this machine set up well?"
    )
    return code
