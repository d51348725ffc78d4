"""The model card: README.md of a repository of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from swinv2_backbone.checkpoints.architecture import built_architecture
from swinv2_backbone.checkpoints.pretrained_window import describe
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.classifier import SwinV2Classifier
from swinv2_backbone.packing import Size

# The usual code to load a model, where ``source`` is its repository, "org/name".
USAGE = {
    ("transformers", False): "AutoModel.from_pretrained(source)",
    ("transformers", True): "AutoModelForImageClassification.from_pretrained(source)",
    ("timm", False): 'create_model(f"hf-hub:{source}", pretrained=True)  # of a folder: local-dir:',
    ("timm", True): 'create_model(f"hf-hub:{source}", pretrained=True)  # of a folder: local-dir:',
}


def model_card(
    model: nn.Module,
    name: str,
    library: str,
    *,
    size: Size,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
    license: str | None,
    left: Sequence[str],
) -> str:
    """Return the model card of a backbone or a classifier.

    Args:
        name: its title.
        library: the library whose layout the weights have.
        size: the image size at which that library computes the same features.
        pixel_mean, pixel_std: the normalization, in the unit of the pixels.
        license: an identifier of the Hub, such as "apache-2.0"; None: not stated.
        left: the tensors that the layout has no place for.
    """
    _, backbone = find_backbone(model)
    is_classifier = isinstance(model, SwinV2Classifier)
    rows = {
        "architecture": str(built_architecture(backbone)),
        "windows": f"{describe(backbone.window_sizes)} tokens per stage",
        "pretrained windows": f"{describe(backbone.pretrained_window_sizes)} tokens per stage",
        "images": f"{backbone.in_channels} channels; {size[0]} x {size[1]} pixels in {library}",
        "normalization": f"mean {_listed(pixel_mean)}; standard deviation {_listed(pixel_std)}, in "
        "the unit of the pixels",
    }
    if isinstance(model, SwinV2Classifier):
        rows["classes"] = str(model.head.out_features)
    if left:
        rows["not in this file"] = ", ".join(left)
    head = {
        "library_name": library,
        "pipeline_tag": "image-classification" if is_classifier else "image-feature-extraction",
        **({"license": license} if license else {}),
    }
    call = USAGE[library, is_classifier]
    lines = [
        *("---", *[f"{key}: {value}" for key, value in head.items()], "tags:", "- swinv2", "---"),
        *(f"# {name}", "", f"A Swin Transformer V2 whose weights {library} loads.", ""),
        *("| | |", "|---|---|", *[f"| {title} | {value} |" for title, value in rows.items()], ""),
        *("```python", f"from {library} import {re.split(r'[.(]', call)[0]}", ""),
        *('source = "org/name"  # this repository', f"model = {call}", "```", ""),
        "swinv2_backbone loads the same file from `hf://org/name` into a SwinV2 of any window.",
    ]
    return "\n".join(lines) + "\n"


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
