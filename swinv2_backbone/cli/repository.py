"""Files of the repository that an installed package does not have: configs, constraints."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


def repository_file(name: str) -> Path:
    """Return the path of a file of the repository, such as ``configs/mask_rcnn_swinv2.yaml``.

    The repository is that of the running ``tools/`` script, otherwise that of the imported package.

    Raises:
        FileNotFoundError: There is no repository, as in an installation from a wheel.
    """
    script = Path(sys.argv[0]).resolve()
    for root in (script.parent.parent, PACKAGE.parent):
        if (root / name).is_file():
            return root / name
    raise FileNotFoundError(
        f"{name} belongs to the repository of swinv2_backbone and is not in the installed package: "
        "clone the repository and run the script in its tools/ folder"
    )
