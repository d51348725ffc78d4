"""Report what a training got right and wrong, or what a model costs.

swinv2 analyze results output                  AP or IoU by class, confusion, pictures of errors
swinv2 analyze model swinv2_tiny_window8_256   parameters, multiply-adds, memory of training

swinv2 analyze results --help and swinv2 analyze model --help have the options.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from swinv2_backbone.cli import analyze_model, analyze_results, arguments, words
from swinv2_backbone.cli.arguments import new_parser
from swinv2_backbone.cli.errors import errors_as_messages, require_detectron2


def main(argv: Sequence[str] | None = None) -> None:
    given = list(argv or ())
    args = parser().parse_args(given[:1])
    rest = given[1:]
    arguments.shown = arguments.shown._replace(program=f"swinv2 analyze {args.what}", usage=None)
    if args.what == "model":
        if rest and not rest[0].startswith("-"):
            rest = ["--model", *rest]
        analyze_model.main(rest)
        return
    if not {"-h", "--help"}.isdisjoint(rest):
        analyze_results.main(["--help"])
    with errors_as_messages():
        rest = words.of_analysis(rest)
        require_detectron2()
    analyze_results.main(rest)


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("what", choices=("results", "model"))
    return found
