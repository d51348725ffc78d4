"""Files that are at the top of the repository, and in the package where it was installed."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def repository_file(name: str) -> Path:
    """Return the path of a file such as ``constraints.txt``.

    Raises:
        FileNotFoundError: the installation lacks it.
    """
    for folder in (PACKAGE, PACKAGE.parent):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"there is no {name} in {PACKAGE}: install swinv2_backbone again")
