"""The commands of ``tools/``: each module parses arguments, does its work through the package, prints.

A module imports torch and Detectron2 only when its command needs them, so that ``--help`` is quick.
"""
