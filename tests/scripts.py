"""The scripts of ``tools/`` as modules."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"


def tool(name: str) -> ModuleType:
    """The script of that name, loaded anew, so that nothing is shared between tests."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
