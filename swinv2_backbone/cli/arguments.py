"""Arguments that several commands share."""

from __future__ import annotations

import argparse


def new_parser(documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help begins with a module's docstring as it is laid out there."""
    return argparse.ArgumentParser(
        description=documentation, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_config_changes(parser: argparse.ArgumentParser) -> None:
    """Add ``KEY VALUE ...``, as Detectron2's own scripts take it."""
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change, at the end of the command",
    )
