"""The short forms of ``swinv2``, rewritten as the options of the scripts in ``tools/``.

``swinv2 eval output`` becomes ``--config-file output/config.yaml MODEL.WEIGHTS
output/model_final.pth``.
"""

from __future__ import annotations

import argparse
import glob
import re
from collections.abc import Sequence
from pathlib import Path

from swinv2_backbone.recipes import config_in, config_path, find_trained, is_lazy
from swinv2_backbone.source_digest import split_digest

# MODEL.WEIGHTS, or train.init_checkpoint=...
KEY = re.compile(r"[A-Z][A-Z0-9_]*(\.[A-Z0-9_]+)*|~?\+{0,2}[A-Za-z_][\w.]*=.*")
WEIGHTS, LAZY_WEIGHTS = "MODEL.WEIGHTS", "train.init_checkpoint"


def of_training(argv: Sequence[str]) -> list[str]:
    """Rewrite the words of ``swinv2 train``; the source may stand anywhere before KEY VALUE."""
    from swinv2_backbone.cli.training_options import parser

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
        for image in images:
            if not glob.has_magic(image) and "://" not in image and not Path(image).exists():
                raise FileNotFoundError(f"there is no image or folder {image!r}")
        # The images first, so that --input does not take KEY VALUE for images.
        words = [*(["--input", *images] if images else []), "--config-file", source, *rest]
    return with_config(parser(), words, weights=True)


def of_export(argv: Sequence[str]) -> list[str]:
    """Rewrite ``SOURCE [options]``, whose source may also be the name of a variant."""
    from swinv2_backbone.cli.export_model import parser
    from swinv2_backbone.variants import RELEASES, VARIANTS

    words = list(argv)
    if words and (words[0] in VARIANTS or words[0] in RELEASES):
        words = ["--model", *words]
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
        weights: add those of :func:`find_trained`, unless the user gives others.
        option: the option that takes the weights; None: a key of the config.

    Raises:
        FileNotFoundError: there is no such config, or it has no weights.
        ValueError: options follow the changes of the config.
    """
    words = list(argv)
    if words and not words[0].startswith("-"):
        words = ["--config-file", *words]
    args = parser.parse_args(words)
    if not args.config_file and args.opts:
        place = len(words) - len(args.opts)
        words = [*words[:place], "--config-file", *words[place:]]
        args = parser.parse_args(words)
    if not args.config_file:
        return words
    place = len(words) - len(args.opts)
    before, opts = words[:place], words[place:]
    if late := [word for word in opts if word.startswith("--") and len(word) > 2]:
        raise ValueError(f"options come before KEY VALUE: {' '.join(late)}")
    if not weights:
        given = Path(args.config_file)
        config = config_in(given) if given.is_dir() else config_path(given)
        return [*before, "--config-file", str(config), *opts]
    chosen = vars(args)[option.lstrip("-")] if option else weights_among(args.opts)
    file, _ = split_digest(chosen or "")
    if file and not option and "://" not in file and not Path(file).exists():
        raise FileNotFoundError(f"there is no file of weights {file!r}")
    found = find_trained(args.config_file, chosen)
    more: list[str] = []
    if found.weights and not chosen:
        lazy = is_lazy(found.config)
        more = [f"{LAZY_WEIGHTS}={found.weights}"] if lazy else [WEIGHTS, found.weights]
        more = [option, found.weights] if option else more
    return [*before, "--config-file", str(found.config), *more, *opts]


def weights_among(opts: Sequence[str]) -> str | None:
    """Return the weights that changes of a config set; None if they set none."""
    pairs = dict(zip(opts, opts[1:]))
    pairs |= dict(word.split("=", 1) for word in opts if "=" in word)
    return pairs.get(WEIGHTS) or pairs.get(LAZY_WEIGHTS) or None
