"""The commands and the instruments of ``tools/`` as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import swinv2_backbone

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
COMMANDS = Path(swinv2_backbone.__file__).parent / "cli"


def tool(name: str) -> ModuleType:
    """Load a command, or an instrument of ``tools/``, anew, so that tests share nothing."""
    file = COMMANDS / f"{name}.py"
    if not file.is_file():
        file = ROOT / "tools" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
