"""The commands of ``tools/``: each module parses arguments, calls the package and prints.

A module imports torch and Detectron2 only when its command needs them, so that ``--help`` is quick.
A command is a module with ``main(argv=None)``; this package exports no names.
"""

__all__: list[str] = []
