"""`hpc-train tune`: search, and look at what was found."""

from __future__ import annotations

import click

from hpc_train.cli import Group

COMMANDS = {
    "start": ("tune_start", "Run the trials of a study; `tune STUDY.toml` is short for it."),
    "report": ("tune_report", "Tables and plots of a study, as HTML and JSON."),
}


class TuneGroup(Group):
    """A group in which a study stands for the command that starts it."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS:
            args = ["start", *args]
        return super().resolve_command(ctx, args)


@click.group(
    name="tune",
    cls=TuneGroup,
    table=COMMANDS,
    context_settings={"ignore_unknown_options": True},
)
def command() -> None:
    """Search for good settings: many trials of a configuration in one job.

    \b
    hpc-train tune my-study.toml -n 4
    mpirun -n 64 hpc-train tune my-study.toml
    hpc-train tune report studies/my-study
    hpc-train run --from-trial studies/my-study:best
    """
