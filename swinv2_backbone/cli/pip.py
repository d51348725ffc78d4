"""pip and Python in separate processes, for the installation of Detectron2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


class InstallError(RuntimeError):
    """Detectron2 cannot be installed; the message gives the reason and the remedy."""


def run(
    *command: str | Path, cwd: str | Path | None = None, python_path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run this Python with arguments; modules in ``python_path`` take precedence."""
    env = os.environ | {"PYTHONPATH": str(python_path)} if python_path else None
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, env=env
    )


def run_pip(*command: str | Path, remedy: str, python_path: Path | None = None) -> None:
    """Run pip for this Python; if it fails, raise with the end of its log and the remedy."""
    done = run("-m", "pip", *command, python_path=python_path)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise InstallError(f"{tail}\n`pip {command[0]}` failed, see above. {remedy}")
