"""The configs of this package, found by name, and the files of a finished training.

An installed package has its configs in its folder ``configs``, a repository at its top.
"""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.source_digest import split_digest

PACKAGE = Path(__file__).resolve().parent
SUFFIXES = (".yaml", ".yml", ".py")
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".safetensors")


class Trained(NamedTuple):
    """The files of a trained model; without ``weights``, those that the config names."""

    config: Path
    weights: str | None


def recipes_folder() -> Path:
    """Return the folder of the recipes.

    Raises:
        FileNotFoundError: the installation has none.
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / "mask_rcnn_swinv2.yaml").is_file():
            return folder
    raise FileNotFoundError(
        f"there are no recipes beside {PACKAGE}: install swinv2_backbone again, or give the path "
        "of a config"
    )


def recipe_names() -> list[str]:
    """Return the names of all recipes, such as ``mask_rcnn_swinv2`` and ``projects/dino_demo``."""
    folder = recipes_folder()
    found = {
        file.relative_to(folder).with_suffix("").as_posix()
        for file in folder.rglob("*")
        if file.suffix in SUFFIXES and "common" not in file.parts and file.stem != "__init__"
    }
    return sorted(found)


def config_path(name: str | Path) -> Path:
    """Return the path of a config: a file, or an installed recipe by its name.

    A name without a suffix means the YAML file where a recipe has both dialects. A file in the
    current folder comes before a recipe of the same name.

    Raises:
        FileNotFoundError: there is neither such a file nor such a recipe; the message has the
            recipes with similar names.
    """
    given = Path(name)
    if given.is_file():
        return given
    if found := find_recipe(given):
        return found
    raise no_config(given)


def no_config(name: Path) -> FileNotFoundError:
    """Return the error for a config that does not exist, with similar names of recipes."""
    close = difflib.get_close_matches(name.with_suffix("").as_posix(), recipe_names(), 3, 0.6)
    hint = f"; similar recipes: {', '.join(close)}" if close else ""
    return FileNotFoundError(f"there is no config, folder or recipe {str(name)!r}{hint}")


def find_recipe(name: Path) -> Path | None:
    """Return the file of a recipe; None if there is none with this name."""
    if name.is_absolute() or ".." in name.parts:
        return None
    folder = recipes_folder()
    if name.suffix in SUFFIXES:
        file = folder / name
        return file if file.is_file() else None
    files = (folder / f"{name}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def is_lazy(config_file: str | Path) -> bool:
    """Return True for a LazyConfig: a .py file, or the config.yaml that its training wrote."""
    file = Path(config_file)
    if file.suffix == ".py":
        return True
    if not file.is_file():
        return False
    text = file.read_text(encoding="utf-8", errors="replace")
    return re.search(r"^(model|dataloader|train):", text, re.MULTILINE) is not None


def config_in(folder: Path) -> Path:
    """Return the config that a training wrote to its output folder.

    Raises:
        FileNotFoundError: there is none.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no config.yaml: give the output folder of a training, a config file or "
            "the name of a recipe"
        )
    return file


def weights_in(folder: Path) -> Path:
    """Return the weights of a training's output folder to evaluate or predict with.

    These are the best ones if the training kept them (``TEST.BEST_METRIC``), else the final ones,
    else those of the last checkpoint.

    Raises:
        FileNotFoundError: there are none.
    """
    names = ["model_best.pth", "model_final.pth"]
    tag = folder / "last_checkpoint"
    if tag.is_file():
        names.append(Path(tag.read_text(encoding="utf-8", errors="replace").strip()).name)
    for name in names:
        if name and (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{folder} has no weights, such as model_final.pth")


def find_trained(source: str | Path, weights: str | Path | None = None) -> Trained:
    """Return the config and the weights that a source means.

    - The output folder of a training means its config, and the best weights if the training kept
      them (``TEST.BEST_METRIC``), else the final ones, else those of the last checkpoint.
    - A checkpoint means the config beside it.
    - Either may end in ``#sha256=HEX``, the digest of the weights.
    - A config in an output folder means the weights of the folder, and any other config, or the
      name of a recipe, the weights that it names.

    Args:
        weights: weights to take instead.

    Raises:
        FileNotFoundError: there is no such source, or it lacks its config or weights.
        ValueError: it is a file of another kind, or the digest is malformed.
    """
    place, digest = split_digest(str(source))
    stated = "" if digest is None else f"#sha256={digest}"
    path, chosen = Path(place), None if weights is None else str(weights)
    if path.is_file() and path.suffix not in (*SUFFIXES, *WEIGHT_SUFFIXES):
        raise ValueError(
            f"{source} is no trained model: give the output folder of a training, a checkpoint "
            f"({', '.join(WEIGHT_SUFFIXES)}) in it, a config or the name of a recipe"
        )
    if path.is_dir():
        return Trained(config_in(path), chosen or f"{weights_in(path)}{stated}")
    if path.suffix in WEIGHT_SUFFIXES:
        if not path.is_file():
            raise FileNotFoundError(f"there is no checkpoint {str(source)!r}")
        return Trained(config_in(path.parent), chosen or f"{path}{stated}")
    config = config_path(source)
    if chosen is None and config.name == "config.yaml":  # its own weights are where training began
        with suppress(FileNotFoundError):
            chosen = str(weights_in(config.parent))
    return Trained(config, chosen)
