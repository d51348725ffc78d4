"""Arguments that several commands share."""

from __future__ import annotations

import argparse


def new_parser(documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help starts with a module's docstring, line breaks included."""
    return argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_imports(parser: argparse._ActionsContainer) -> None:
    """Add ``--import``, the code of other projects that a config needs."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="MODULE[:FUNCTION]",
        help="another project's code, which is imported before the config is read; FUNCTION(cfg) "
        "adds its keys; repeatable (docs/PROJECTS.md)",
    )


def add_config_changes(parser: argparse.ArgumentParser) -> None:
    """Add ``KEY VALUE ...``, as in Detectron2's own scripts."""
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change, at the end of the command",
    )
