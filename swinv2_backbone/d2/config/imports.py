"""Another project's code for a config: imported by name before the config is read.

A config file never names code that is run: it records the imports it was written with, and the
user repeats them.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import re
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from detectron2.config import CfgNode

from swinv2_backbone.d2.config.rules import ConfigError

NAME = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*(:[^\W\d]\w*)?")


def add_project(cfg: CfgNode, name: str) -> None:
    """Import a project's code, and let its function add its keys to ``cfg``.

    Args:
        name: "package.module:function" for ``function(cfg)``; "package.module" is only imported.

    Raises:
        ConfigError: the module or function does not exist, or the function takes other arguments.
    """
    module, (_, _, attribute) = import_module(name), name.partition(":")
    if not attribute:
        return
    function = getattr(module, attribute, None)
    if not callable(function):
        near = difflib.get_close_matches(attribute, dir(module), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError([f"--import {name}: {module.__name__} has no function {attribute}{hint}"])
    try:
        inspect.signature(function).bind(cfg)
    except TypeError as error:
        raise ConfigError([f"--import {name}: {attribute}(cfg) is called, but {error}"]) from error
    returned: Any = function(cfg)
    if isinstance(returned, CfgNode) and returned is not cfg:
        raise ConfigError(
            [f"--import {name}: {attribute}(cfg) must change the given config, not a copy"]
        )


def import_modules(names: Sequence[str], config_file: str) -> None:
    """Import "package.module" names before a LazyConfig is read.

    Raises:
        ConfigError: a name has a function, or its module cannot be imported.
    """
    for name in names:
        if ":" in name:
            module = name.partition(":")[0]
            raise ConfigError(
                [
                    f"--import {name}: {config_file} is a LazyConfig, which has no keys that a "
                    f"function could add; give --import {module}, or import it in the file"
                ]
            )
        import_module(name)


def import_module(name: str) -> ModuleType:
    """Import the module of "package.module:function", also from the working directory.

    Raises:
        ConfigError: it does not exist, or something that it imports does not.
    """
    if not NAME.fullmatch(name):
        raise ConfigError([f"--import must be package.module:function, got {name!r}"])
    module = name.partition(":")[0]
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that it hides no installed package
    try:
        return importlib.import_module(module)
    except ImportError as error:
        own = error.name and f"{module}.".startswith(f"{error.name}.")  # not what it imports
        where = "; it must be installed, in PYTHONPATH or in the working directory" if own else ""
        raise ConfigError([f"--import {name}: {error}{where}"]) from error


def absent_imports(recorded: Sequence[str], given: Sequence[str], config_file: str) -> list[str]:
    """Report the imports that a config file was written with and that are not given."""
    absent = [name for name in recorded if name not in given]
    if not absent:
        return []
    flags = " ".join(f"--import {name}" for name in absent)
    return [
        f"{config_file} was written with {flags}: add it, if you trust this code (from Python: "
        f"imports={absent}). A config file does not run code by itself"
    ]
