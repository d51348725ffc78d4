"""Commands of the documentation: checked against their scripts, and run."""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

from detectron2.data import DatasetCatalog, MetadataCatalog
from documents import ROOT
from project_stand_ins import stand_ins
from small_configs import SMALL

from swinv2_backbone.cli.main import COMMANDS
from swinv2_backbone.cli.words import of_analysis
from swinv2_backbone.d2.config.lazy import load_lazy_config
from swinv2_backbone.d2.config.yacs import load_config

# Arguments that shorten a command: options, and at its end KEY VALUE.  The demo's models are small
# already.
CPU = ("MODEL.DEVICE", "cpu")
LAZY_CPU = "train.device=cpu"
SHORT = {
    "make_demo_dataset": (["--num-train", "8", "--num-val", "4", "--image-size", "64"], ()),
    "pretrain_simmim": (["--iterations", "2", "--batch-size", "2", "--period", "1"], ()),
    "train_net": (["--fast-dev-run"], (*CPU, *SMALL)),
}
# Not run by the tests of the documentation: always long, or run by other tests.
NEVER_SHORT = {"make", "pip", "benchmark", "demo", "export_model", "install_detectron2"}

MODULE = ("-m", "swinv2_backbone")

sys.path.append(str(ROOT / "tools"))  # where a running script finds its neighbors


class _Found(Exception):
    """Carries a parser out of the function that builds it."""


def script_of(words: list[str]) -> tuple[str, list[str]]:
    """Return the name of the script in ``tools/`` that a command runs, and its arguments."""
    if begin := after_swinv2(words):
        return script_of_swinv2(*words[begin:])
    places = [i for i, word in enumerate(words) if re.fullmatch(r"tools/\w+\.py", word)]
    if not places:
        raise ValueError(f"no script of tools/ in: {' '.join(words)}")
    name = Path(words[places[0]]).stem
    if not (ROOT / "tools" / f"{name}.py").is_file():
        raise ValueError(f"tools/{name}.py does not exist")
    return name, words[places[0] + 1 :]


def after_swinv2(words: list[str]) -> int:
    """Return the place behind ``swinv2`` or ``-m swinv2_backbone``; 0 if a command has neither."""
    if words[0] == "swinv2":
        return 1
    pairs = list(zip(words, words[1:]))
    return pairs.index(MODULE) + 2 if MODULE in pairs else 0


def script_of_swinv2(name: str, *words: str) -> tuple[str, list[str]]:
    """Return the script that does the same as ``swinv2 NAME``, and its arguments."""
    if name not in COMMANDS:
        raise ValueError(f"swinv2 has no command {name}")
    if name == "analyze":
        kind, *rest = words
        return f"analyze_{kind}", of_analysis(rest) if kind == "results" else of_model(rest)
    arguments = COMMANDS[name].rewrite(words)
    if name == "eval":
        return "train_net", ["--eval-only", *arguments]
    return "train_net" if name == "train" else COMMANDS[name].module, arguments


def of_model(words: list[str]) -> list[str]:
    """Rewrite the words of ``swinv2 analyze model``, whose first may be a model's name."""
    return ["--model", *words] if words and not words[0].startswith("-") else words


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a script by running it until it parses its arguments."""

    def caught(parser: argparse.ArgumentParser, *_: object) -> None:
        raise _Found(parser)

    script = str(ROOT / "tools" / f"{name}.py")
    with mock.patch.object(argparse.ArgumentParser, "parse_args", caught):
        try:
            runpy.run_path(script, run_name="__main__")
        except _Found as found:
            return found.args[0]
    raise ValueError(f"{script} parses no arguments")


def check(words: list[str]) -> None:
    """Raise ValueError or SystemExit if a command cannot be right.

    A script must exist and accept the arguments; its config and the config's keys must exist.
    """
    if words[0] == "make":
        check_targets(words[1:])
    elif words[0] == "source":
        if words != ["source", ".venv/bin/activate"]:
            raise ValueError(f"unknown command: {' '.join(words)}")
    elif words[0] == "srun":  # sbatch's jobs start a command in a shell
        if inner := " ".join(words).partition("exec ")[2]:
            check(shlex.split(inner))
    elif words[0] == "python":
        if not Path(words[1]).is_file():
            raise ValueError(f"{words[1]} does not exist")
    elif words[0] not in ("export", "pip"):
        args = parsed(*script_of(words))
        if getattr(args, "config_file", None):
            check_config(args.config_file, args.opts, getattr(args, "imports", ()))


def check_config(path: str, opts: list[str], imports: Sequence[str] = ()) -> None:
    """Load a config with its changes, for the CPU."""
    if not Path(path).is_file():
        raise ValueError(f"{path} does not exist")
    with stand_ins():
        if path.endswith(".py"):
            load_lazy_config(path, [LAZY_CPU, *opts], imports)
        else:
            load_config(path, [*CPU, *opts], imports)


def check_targets(names: list[str]) -> None:
    known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
    for name in names:
        if name not in known and "=" not in name:
            raise ValueError(f"make has no target {name}")


def check_inline(words: list[str]) -> None:
    """Check a command in prose, which may leave arguments out."""
    if words[0] == "pip":
        return
    if "pytest" in words:
        paths = [word for word in words if word.startswith("tests/")]
        if not all((ROOT / path).is_file() for path in paths):
            raise ValueError(f"no such tests: {paths}")
    elif words[0] == "make":
        check_targets(words[1:])
    else:
        name, arguments = inline_script(words)
        options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        if unknown := options - set(parser_of(name)._option_string_actions):
            raise ValueError(f"tools/{name}.py has no {', '.join(sorted(unknown))}")


def inline_script(words: list[str]) -> tuple[str, list[str]]:
    """Return the script of a command in prose, whose files need not exist, and its options."""
    if words[0] != "swinv2":
        return script_of(words)
    if words[1] == "analyze":
        return f"analyze_{words[2] if len(words) > 2 else 'results'}", words[3:]
    if words[1] not in COMMANDS:
        raise ValueError(f"swinv2 has no command {words[1]}")
    module = COMMANDS[words[1]].module
    return {"train": "train_net", "evaluate": "train_net"}.get(module, module), words[2:]


def parsed(name: str, arguments: list[str]) -> argparse.Namespace:
    return parser_of(name).parse_args(arguments)


def shortened(name: str, arguments: list[str]) -> list[str]:
    """Return the arguments of a short form."""
    flags, keys = SHORT[name]
    opts = getattr(parsed(name, arguments), "opts", [])
    cut = len(arguments) - len(opts)
    demo = any("_demo." in argument for argument in arguments)
    return [*arguments[:cut], *flags, *opts, *(CPU if keys and demo else keys)]


def run(words: list[str], short: bool = False) -> None:
    """Run a command in this process and folder, as a shell runs its script.

    Raises:
        SystemExit: The script fails.
        KeyError: A short form is requested that does not exist.
    """
    if words[0] == "source":
        return
    if words[0] == "export":
        os.environ.update(word.split("=", 1) for word in words[1:])
        return
    if words[0] == "python":  # a script of the reader's
        script, arguments = words[1], words[2:]
    else:
        name, arguments = script_of(words)
        arguments = shortened(name, arguments) if short else arguments
        script = str(ROOT / "tools" / f"{name}.py")
    with mock.patch.object(sys, "argv", [script, *arguments]), forgotten_datasets():
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise


class forgotten_datasets:
    """Removes the datasets that are registered inside."""

    def __enter__(self) -> None:
        self.before = set(DatasetCatalog)

    def __exit__(self, *_: object) -> None:
        for name in set(DatasetCatalog) - self.before:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
