"""`hpc-train config init|show|schema`: write, show and explain configurations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from hpc_train import recipes
from hpc_train.cli.report import dry_run_option, json_option, print_json
from hpc_train.config import digest, json_schema, load, starter, to_toml
from hpc_train.errors import HpcTrainError, UsageError, unknown

DEFAULT_PATH = "train.toml"


class _Commands(click.Group):
    """A group that guesses typos."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise UsageError(
                unknown("command", args[0], self.commands),
                hint=f"{ctx.command_path} --help lists them",
            )
        return super().resolve_command(ctx, args)


@click.group(name="config", cls=_Commands)
def command() -> None:
    """Write, show or explain configurations."""


@command.command()
@click.argument("path", default=DEFAULT_PATH, type=click.Path(path_type=Path))
@dry_run_option
def init(path: Path, dry_run: bool) -> None:
    """Write a commented starter file.

    Its name is PATH, or train.toml. It trains on the handwritten digits that ship with the
    package, and names every key with its default. An existing file is never overwritten;
    --dry-run prints what would be written.
    """
    _write(path, starter(), dry_run)
    if not dry_run:
        click.echo(f"wrote {path}; train with: hpc-train run {path} -n 2")


@command.command()
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY.SUB=VALUE]...")
@json_option
def show(config: str, overrides: Sequence[str], as_json: bool) -> None:
    """Show CONFIG with all defaults, and where each value comes from.

    CONFIG is a TOML file or the name of a recipe. What is printed is itself a configuration.
    """
    source = recipes.find(config)
    loaded = load(source, overrides)
    if as_json:
        document = {
            "source": str(source),
            "digest": digest(loaded.config),
            "config": loaded.config.model_dump(mode="json"),
            "origins": loaded.origins,
        }
        print_json(document)
        return
    click.echo(f"# {source}\n")
    click.echo(to_toml(loaded.config, loaded.origins), nl=False)


@command.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@dry_run_option
def schema(path: Path | None, dry_run: bool) -> None:
    """Print the JSON schema of configurations.

    With PATH, write it to that file. Editors that know TOML schemas take it from a first line
    "#:schema PATH". An existing file is never overwritten.
    """
    text = json.dumps(json_schema(), indent=2) + "\n"
    if path is None:
        click.echo(text, nl=False)
        return
    _write(path, text, dry_run)
    if not dry_run:
        click.echo(f"wrote {path}; for editors, begin a configuration with: #:schema {path}")


def _write(path: Path, text: str, dry_run: bool) -> None:
    """Write a new file; with `dry_run`, only check that it is new, and print it."""
    try:
        if dry_run:
            if path.exists():
                raise FileExistsError
            click.echo(text, nl=False)
            return
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            "the file exists already, nothing was written",
            where=str(path),
            hint="name another one, or remove it first",
        ) from None
    except OSError as error:
        raise HpcTrainError(f"cannot write it: {error.strerror}", where=str(path)) from error
