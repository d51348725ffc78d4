"""The commands of ``tools/``: each module parses arguments, calls the package and prints.

A module imports torch and Detectron2 only when its command needs them, so that ``--help`` is quick.
A command is a module with ``main(argv=None)``; this package exports no names.
"""

import os

__all__: list[str] = []

# Read by OpenMP when torch is imported: threads that wait for work sleep. Spinning ones slow a busy
# machine down tenfold (on a quiet one they are faster for small images: docs/PREDICTING.md).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
