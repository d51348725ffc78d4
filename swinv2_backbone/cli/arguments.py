"""Arguments that several commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NamedTuple

from swinv2_backbone.keys import wrong_keys
from swinv2_backbone.recipes import is_lazy

STEM_RULES = ("repeat", "mean", "zero")  # as in checkpoints.stem (a test compares)


class Shown(NamedTuple):
    """How help texts call a command: ``program``, its short ``usage``, and words to replace."""

    program: str | None = None
    usage: str | None = None
    replaced: dict[str, str] = {}


shown = Shown()  # a script of tools/; cli/main.py sets that of ``swinv2 COMMAND``


class Parser(argparse.ArgumentParser):
    """A parser whose help has the commands that the user types, ``swinv2 X`` or ``tools/X.py``."""

    def format_help(self) -> str:
        text = super().format_help()
        for script, command in shown.replaced.items():
            text = text.replace(script, command)
        return text


def new_parser(documentation: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help starts with a module's docstring, line breaks included."""
    return Parser(
        prog=shown.program,
        usage=f"{shown.program} {shown.usage}" if shown.usage else None,
        description=documentation,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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


def add_images(parser: argparse._ActionsContainer) -> None:
    """Add the options of the images' channels or bands, and of weights for another number."""
    add = parser.add_argument
    add(
        "--image-format",
        choices=("RGB", "BANDS"),
        default="RGB",
        help="BANDS: all bands of TIFF files and NumPy arrays, as they are stored",
    )
    for option, what in (("--pixel-mean", "mean"), ("--pixel-std", "standard deviation")):
        text = f"{what} of each channel or band, in the unit of the pixels; default: ImageNet's"
        add(option, type=float, nargs="+", metavar="X", help=text)
    add(
        "--stem",
        choices=STEM_RULES,
        help="rule for weights of another number of bands (docs/BANDS.md); default: refused",
    )


def pixel_numbers(args: argparse.Namespace) -> tuple[Sequence[float], Sequence[float]]:
    """Return the mean and the standard deviation of each channel or band.

    Raises:
        ValueError: they contradict each other or the format of the images, or are not given.
    """
    from swinv2_backbone.checkpoints.normalization import normalization

    mean, std = args.pixel_mean, args.pixel_std
    if args.image_format == "BANDS" and (mean is None or std is None):
        raise ValueError(
            "--image-format BANDS needs --pixel-mean and --pixel-std, one number for each band"
        )
    return normalization(3 if args.image_format == "RGB" else len(mean), mean, std)


def add_config_changes(parser: argparse.ArgumentParser) -> None:
    """Add ``KEY VALUE ...``, as in Detectron2's own scripts."""
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys to change, at the end of the command",
    )


def config_changes(
    config_file: str, opts: Sequence[str], imports: Sequence[str] = ()
) -> dict[str, str]:
    """Return the changes of a config by key, before it is loaded, which takes seconds.

    Raises:
        ValueError: the changes are incomplete, or Detectron2 and this package have no such keys.
    """
    opts = [word for word in opts if word != "--"]
    if is_lazy(config_file):
        if wrong := [word for word in opts if "=" not in word]:
            raise ValueError(f"overrides of a LazyConfig are key=value, got {' '.join(wrong)}")
        return dict(word.partition("=")[::2] for word in opts)
    if len(opts) % 2:
        raise ValueError(f"overrides come in pairs KEY VALUE, got {' '.join(opts)}")
    changes = dict(zip(opts[::2], opts[1::2]))
    if not imports and (faults := wrong_keys(changes)):
        raise ValueError("\n".join(faults))
    return changes
