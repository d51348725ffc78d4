"""Write a folder that another library's ``from_pretrained`` loads, and that the Hub accepts."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from swinv2_backbone.checkpoints.convert import to_layout
from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.files import write_file
from swinv2_backbone.checkpoints.hugging_face_config import hugging_face_config
from swinv2_backbone.checkpoints.model_card import model_card
from swinv2_backbone.checkpoints.normalization import normalization
from swinv2_backbone.checkpoints.save import notes_of
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.checkpoints.timm_config import timm_config
from swinv2_backbone.classifier import SwinV2Classifier

LIBRARIES = {"transformers": "huggingface", "timm": "timm"}  # library -> layout
WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike,
    library: str = "transformers",
    *,
    pixel_mean: Sequence[float] | None = None,
    pixel_std: Sequence[float] | None = None,
    class_names: Sequence[str] = (),
    license: str | None = None,
    overwrite: bool = False,
) -> list[str]:
    """Write a backbone or a classifier as model.safetensors, config.json and README.md.

    The two libraries have different names for the weights and read a file of the same name, so that
    a folder is for one of them.

    Args:
        model: a :class:`SwinV2` or a :class:`SwinV2Classifier`; of any other model that
            contains a SwinV2, only the SwinV2 is written.
        folder: the folder; it is made if it does not exist.
        library: "transformers", for ``from_pretrained``; or "timm", for
            ``create_model("local-dir:FOLDER")``, which transformers loads too where timm is
            installed.
        pixel_mean, pixel_std: the normalization of the images, in the unit of the pixels; default:
            ImageNet's, for 3 channels.
        class_names: the names of a classifier's classes.
        license: an identifier of the Hub for the model card, such as "apache-2.0"; None: the card
            states none.
        overwrite: replace existing files.

    Returns:
        The names of the tensors that the library has no place for: norms of earlier outputs.

    Raises:
        ValueError: an argument is out of its range, or the library cannot hold the model.
        FileExistsError: one of the files exists and ``overwrite`` is False.
        OSError: a file cannot be written.
    """
    if library not in LIBRARIES:
        raise ValueError(f"unknown library {library!r}; there are: {', '.join(LIBRARIES)}")
    folder = Path(os.path.expanduser(folder))
    _, backbone = find_backbone(model)
    model = model if isinstance(model, SwinV2Classifier) else backbone
    mean, std = normalization(backbone.in_channels, pixel_mean, pixel_std)
    _check_names(model, class_names)
    if library == "transformers":
        config = hugging_face_config(model, class_names)
        size = (config["image_size"],) * 2
    else:
        # Both libraries scale pixels by 1 / 255 before they normalize them.
        scaled_mean, scaled_std = ([round(x / 255, 7) for x in numbers] for numbers in (mean, std))
        config = timm_config(model, scaled_mean, scaled_std, class_names)
        size = config["model_args"]["img_size"]
    content, left = to_layout(model, LIBRARIES[library])
    card = model_card(
        model,
        folder.absolute().name,
        library,
        size=size,
        pixel_mean=mean,
        pixel_std=std,
        license=license,
        left=left,
    )
    there = [name for name in (WEIGHTS, CONFIG, CARD) if (folder / name).exists()]
    if there and not overwrite:
        raise FileExistsError(
            f"{folder} has {', '.join(there)} already: choose another folder, or give "
            "overwrite=True to replace them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / WEIGHTS, content, notes_of(backbone), overwrite)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    write_text(folder / CARD, card)
    return left


def _check_names(model: nn.Module, class_names: Sequence[str]) -> None:
    """Raise ValueError unless there are no names, or one for each class."""
    classes = model.head.out_features if isinstance(model, SwinV2Classifier) else 0
    if class_names and len(class_names) != classes:
        raise ValueError(f"{len(class_names)} class_names for a model of {classes} classes")
    if len(set(class_names)) < len(class_names):
        raise ValueError("class_names must differ from each other")
