"""From names in a configuration to functions, and from keys to their arguments."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from hpc_train.errors import ConfigError, nearest, unknown


def find(section: str, name: str, known: Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The function that `name` stands for: a known one, or `my_package.module:function`.

    The current directory is searched for modules, too.

    Raises:
        ConfigError: if there is no such module or function.
    """
    if ":" not in name:
        if name in known:
            return known[name]
        raise ConfigError(
            unknown(section, name, known),
            where=f"{section}.name",
            hint="for your own, write my_package.module:function",
        )
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), attribute]):
        raise ConfigError(
            f'a name of your own must read my_package.module:function ({section}.name: "{name}")',
            where=f"{section}.name",
        )
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        home = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there, and imports one that is not
        raise ConfigError(
            f'no module "{error.name}" ({section}.name: "{name}")',
            where=f"{section}.name",
            hint="start from the folder that holds it, or install it",
        ) from error
    found = getattr(home, attribute, None)
    if found is None:
        names = [key for key, value in vars(home).items() if callable(value)]
        raise ConfigError(
            f'module "{module}" has no "{attribute}" ({section}.name: "{name}")',
            where=f"{section}.name",
            hint=f"did you mean {module}:{like}?" if (like := nearest(attribute, names)) else None,
        )
    if not callable(found):
        raise ConfigError(f'"{name}" cannot be called', where=f"{section}.name")
    function: Callable[..., Any] = found
    return function


def bind(
    section: str,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    offered: Mapping[str, Any],
) -> dict[str, Any]:
    """The keyword arguments to call `function` with: `arguments`, and what it wants of `offered`.

    Raises:
        ConfigError: naming every key that it does not take, and every one that it lacks.
    """
    parameters = inspect.signature(function).parameters
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    given = {name: value for name, value in offered.items() if name in parameters}
    given.update(arguments)
    problems = []
    for key in arguments:
        if key not in parameters and not open_ended:
            like = nearest(key, parameters)
            known = ", ".join(parameters) or "none"
            problems.append(
                ConfigError(
                    f"unknown key {section}.{key}, {_title(function)} takes: {known}"
                    + (f"; did you mean {section}.{like}?" if like else "")
                )
            )
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        if named and parameter.default is parameter.empty and name not in given:
            problems.append(ConfigError(f"{_title(function)} needs {section}.{name}"))
    if problems:
        raise ConfigError(problems[0].message, problems=problems)
    return given


def _title(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))
