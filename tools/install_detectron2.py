#!/usr/bin/env python
"""Install Detectron2; see --help."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package may not be installed yet

from swinv2_backbone.cli.install_detectron2 import main  # noqa: E402 - needs the path above

if __name__ == "__main__":
    main()
