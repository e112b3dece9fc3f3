"""`hpc-train recipes`: the examples that ship with the package."""

from __future__ import annotations

import click

from hpc_train import recipes
from hpc_train.cli.report import json_option, print_json


@click.command(name="recipes")
@json_option
def command(as_json: bool) -> None:
    """List the examples that ship with the package.

    Wherever a configuration is asked for, the name of a recipe will do: hpc-train run digits-cnn.
    """
    found = recipes.recipes()
    if as_json:
        rows = [{"name": r.name, "description": r.description, "path": str(r.path)} for r in found]
        print_json({"recipes": rows})
        return
    width = max(len(recipe.name) for recipe in found)
    for recipe in found:
        click.echo(f"{recipe.name:<{width}}  {recipe.description}")
