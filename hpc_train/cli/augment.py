"""`hpc-train augment CONFIG OUT.png`: what a configuration's augmentations make of samples."""

from __future__ import annotations

from pathlib import Path

import click

from hpc_train import recipes
from hpc_train.config import load
from hpc_train.errors import UsageError


@click.command(name="augment")
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option(
    "--plot",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.png",
    default=Path("augmented.png"),
    show_default=True,
    help="Where the picture goes.",
)
@click.option("--num", type=click.IntRange(2, 32), default=8, show_default=True, metavar="N")
def command(config: str, overrides: tuple[str, ...], plot: Path, num: int) -> None:
    """Draw N training samples, one in each row: as it is, then as the first N - 1 epochs get it.

    \b
    hpc-train augment mnist-cnn data.train=mnist
    hpc-train augment my.toml --plot seen.png 'augmentation=[{name = "rotation", degrees = 30}]'
    """
    from hpc_train.observe.picture import grid, is_picture, write_png
    from hpc_train.train.preview import preview
    from hpc_train.train.rundir import writing

    found = preview(load(recipes.find(config), overrides).config, num, num - 1)
    if not is_picture(found.shape[2:]):
        raise UsageError(f"samples of shape {found.shape[2:]} cannot be drawn", where="--plot")
    if len(found) < num:
        raise UsageError(
            f"there are fewer samples than rows (samples: {len(found)})", where="--num"
        )
    low, high = found[:, 0].min(), found[:, 0].max()
    brightness = (found - low) / (high - low if high > low else 1.0)
    with writing(plot.parent):
        write_png(plot, grid(brightness.reshape(-1, *found.shape[2:])))
    click.echo(f"{plot}  {len(found)} samples, each as it is and in {num - 1} epochs")
