"""The short forms of ``swinv2``, rewritten as the options of the scripts in ``tools/``.

``swinv2 eval output`` becomes ``--config-file output/config.yaml MODEL.WEIGHTS
output/model_final.pth``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.recipes import config_in, config_path, is_lazy, weights_in

# MODEL.WEIGHTS, or train.init_checkpoint=...
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*|~?\+{0,2}[A-Za-z_][\w.]*=.*")
WEIGHTS = ("MODEL.WEIGHTS", "train.init_checkpoint")  # in YAML, in a LazyConfig


def of_training(argv: Sequence[str]) -> list[str]:
    """Rewrite the words of ``swinv2 train``; the source may stand anywhere before KEY VALUE."""
    from swinv2_backbone.cli.train import parser

    return with_config(parser(), argv, weights=False)


def of_evaluation(argv: Sequence[str]) -> list[str]:
    from swinv2_backbone.cli.evaluate import parser

    return with_config(parser(), argv, weights=True)


def of_analysis(argv: Sequence[str]) -> list[str]:
    from swinv2_backbone.cli.analyze_results import parser

    return with_config(parser(), argv, weights=False)


def of_prediction(argv: Sequence[str]) -> list[str]:
    """Rewrite ``SOURCE IMAGE ... [options] [KEY VALUE ...]``."""
    from swinv2_backbone.cli.predict import parser

    words = list(argv)
    if words and not words[0].startswith("-"):
        source, *rest = words
        end = 0
        while end < len(rest) and is_file_or_no_key(rest[end]):
            end += 1
        images, rest = rest[:end], rest[end:]
        # The images first, so that --input does not take KEY VALUE for images.
        words = [*(["--input", *images] if images else []), "--config-file", source, *rest]
    return with_config(parser(), words, weights=True)


def of_export(argv: Sequence[str]) -> list[str]:
    """Rewrite ``SOURCE [options]``, whose source may also be a variant such as swinv2_tiny."""
    from swinv2_backbone.cli.export_model import parser
    from swinv2_backbone.variants import RELEASES, VARIANTS

    words = list(argv)
    if words and not words[0].startswith("-"):
        named = words[0] in VARIANTS or words[0] in RELEASES
        words = ["--model" if named else "--config-file", *words]
    return with_config(parser(), words, weights=True, option="--weights")


def is_file_or_no_key(word: str) -> bool:
    return not word.startswith("-") and (Path(word).exists() or not KEY.fullmatch(word))


def with_config(
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    *,
    weights: bool,
    option: str | None = None,
) -> list[str]:
    """Return words in which ``--config-file`` is an existing file.

    Args:
        argv: words that name the config by ``--config-file``, or by their first word that is no
            option.  It may be a file, a recipe, or the output folder of a training.
        weights: add the weights of an output folder, unless the user gives others.
        option: the option that takes the weights; None: a key of the config.

    Raises:
        FileNotFoundError: there is no such config, or it has no weights.
    """
    words = list(argv)
    args = parser.parse_args(words)
    if not args.config_file and args.opts:
        place = len(words) - len(args.opts)
        words = [*words[:place], "--config-file", *words[place:]]
        args = parser.parse_args(words)
    if not args.config_file:
        return words
    given = Path(args.config_file)
    place = len(words) - len(args.opts or ())
    config = config_in(given) if given.is_dir() else config_path(given)
    more: list[str] = []
    if weights and given.is_dir():
        key = WEIGHTS[is_lazy(config)]
        if option and not vars(args)[option.lstrip("-")]:
            more = [option, str(weights_in(given))]
        elif not option and not any(word.split("=")[0] == key for word in args.opts):
            file = weights_in(given)
            more = [f"{key}={file}"] if is_lazy(config) else [key, str(file)]
    return [*words[:place], "--config-file", str(config), *more, *words[place:]]
