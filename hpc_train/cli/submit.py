"""`hpc-train submit CONFIG`: write a batch script into the run directory, hand it to Slurm."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from hpc_train import recipes
from hpc_train.cli.report import dry_run_option
from hpc_train.config import load
from hpc_train.errors import ConfigError
from hpc_train.launch.slurm.jobs import SCRIPT, read_submission
from hpc_train.launch.slurm.jobs import submit as hand_over
from hpc_train.launch.slurm.script import LAUNCHERS, Allocation, train


@click.command(name="submit")
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@click.option("--nodes", "-N", default="1", show_default=True, metavar="N[-M]", help="Nodes.")
@click.option("--ntasks-per-node", "tasks_per_node", type=click.IntRange(min=1), default=1)
@click.option("--time", default="01:00:00", show_default=True, help="As sbatch --time.")
@click.option("--cpus-per-task", type=click.IntRange(min=1), default=1, help="Cores of each rank.")
@click.option("--gpus-per-node", type=click.IntRange(min=1), help="GPUs of each node.")
@click.option("--mem", "memory", metavar="SIZE", help="Memory of each node, such as 64G.")
@click.option("--partition", "-p")
@click.option("--account", "-A")
@click.option("--qos")
@click.option("--array", help="As sbatch --array; an element's number is its run.seed.")
@click.option(
    "--launcher",
    default="mpirun",
    show_default=True,
    metavar="NAME",
    help=f"{', '.join(LAUNCHERS)}; only mpirun survives lost ranks.",
)
@click.option(
    "--signal-seconds",
    type=click.IntRange(min=60),
    default=300,
    show_default=True,
    help="So long before the end the run saves and is requeued.",
)
@click.option("--max-requeues", type=click.IntRange(min=0), default=20, show_default=True)
@click.option(
    "--program",
    metavar="WORDS",
    help='hpc-train on the nodes, such as "apptainer exec x.sif hpc-train"; default: this one.',
)
@click.option("--prepare", multiple=True, help='A line of the script, such as "module load x".')
@click.option("--option", "options", multiple=True, help="A further option of sbatch.")
@dry_run_option
def command(
    config: str, overrides: tuple[str, ...], dry_run: bool, program: str | None, **asked: Any
) -> int:
    """Hand the run that CONFIG describes to Slurm: a TOML file, or the name of a recipe.

    The script lies in the run directory. Near its time limit, at preemption and after a lost node
    the job saves, is queued again, and goes on by itself, on as many ranks as it then gets.

    \b
    hpc-train submit my.toml --nodes 2 --ntasks-per-node 4 --time 04:00:00
    hpc-train submit my.toml --nodes 1-4 --ntasks-per-node 8 --dry-run
    """
    from hpc_train.train.rundir import new_run_dir

    source = recipes.find(config).absolute()
    loaded = load(source, overrides).config
    folder = new_run_dir(loaded).absolute()
    if (folder / "config.toml").exists() or read_submission(folder) is not None:
        raise ConfigError(
            "run directory holds a run already", where=str(folder), hint="choose another run.dir"
        )
    script = train(
        Allocation(name=loaded.run.name, **asked),
        program=_program() if program is None else program,
        run=str(folder),
        config=str(source),
        overrides=[word for word in overrides if not word.startswith("run.dir=")],
        folder=str(Path.cwd()),
    )
    if dry_run:
        click.echo(script, nl=False)
        return 0
    job = hand_over(folder, script).job
    click.echo(f"job     {job}\nrun     {folder}\nscript  {folder / SCRIPT}")
    click.echo(f"output  {folder}/slurm-{job}.out" if not asked["array"] else "")
    return 0


def _program() -> str:
    """This very installation, as a word of a shell."""
    return shlex.join([sys.executable, "-m", "hpc_train"])
