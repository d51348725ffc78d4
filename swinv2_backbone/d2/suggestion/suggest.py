"""Settings of a Mask R-CNN for a dataset and a GPU, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.suggestion.anchors import choose_anchors
from swinv2_backbone.d2.suggestion.memory import DetectorMemory, detector_memory
from swinv2_backbone.d2.suggestion.objects import ObjectSizes
from swinv2_backbone.d2.suggestion.parts import (
    Part,
    Reason,
    anchors_part,
    detections_part,
    has_masks,
    images_part,
    model_part,
)
from swinv2_backbone.d2.suggestion.resolution import (
    SHORT_EDGES,
    Resolution,
    choose_resolution,
    scaled_boxes,
)
from swinv2_backbone.recipes import config_path
from swinv2_backbone.training_memory import GIB

# Recipes from the largest, with the images of a dataset from which on they are suggested.
RECIPES = (
    ("mask_rcnn_swinv2_base", 20_000),
    ("mask_rcnn_swinv2_small", 2_000),
    ("mask_rcnn_swinv2", 0),
)
BATCH, EPOCHS, DROPS = 16, 36, (27, 33)  # of the recipes
RATE = 1e-4  # the recipes' learning rate at BATCH
SHORTEST = 1_500  # iterations at BATCH; small datasets need as many
EVALUATIONS = 20
# A small model from scratch, which learns within minutes on a CPU.
CPU_RECIPE, CPU_SHORT = "mask_rcnn_swinv2_demo", 256


@dataclass(frozen=True)
class Suggestion:
    """Settings for a dataset and a GPU.

    Attributes:
        recipe: name of the recipe that the settings change.
        settings: values by config key.
        reasons: the settings in words, with a reason for each.
    """

    recipe: str
    settings: dict[str, Any]
    reasons: list[Reason]


class _Fit(NamedTuple):
    """A recipe and resolution that fit into the memory, with the images that fit at once."""

    recipe: str
    checkpointing: bool
    resolution: Resolution
    memory: DetectorMemory
    images: int


def suggest(objects: ObjectSizes, memory: float, gpus: int = 1, batch: int = BATCH) -> Suggestion:
    """Suggest settings for a dataset.

    Args:
        objects: the sizes of its objects.
        memory: memory of each GPU in bytes.
        gpus: number of GPUs.
        batch: images of a step, over all GPUs.

    Raises:
        ValueError: the batch cannot be divided among the GPUs, or no model fits into the memory.
    """
    if batch < gpus or batch % gpus:
        raise ValueError(f"a batch of {batch} images cannot be divided among {gpus} GPUs")
    fit = _fit(objects, memory)
    boxes = scaled_boxes(objects, fit.resolution.short, fit.resolution.longest)
    anchors = choose_anchors(boxes)
    model, reason = model_part(fit.recipe, objects, _why_model(objects, fit, memory))
    if fit.checkpointing:
        model["MODEL.SWINV2.ACTIVATION_CHECKPOINTING"] = True
    return _joined(
        fit.recipe,
        (model, reason),
        images_part(fit.resolution),
        anchors_part(anchors),
        _batch(fit, gpus, batch, memory),
        _schedule(len(objects.images), batch),
        _rate(batch),
        detections_part(objects),
    )


def suggest_for_cpu(objects: ObjectSizes) -> Suggestion:
    """Suggest a small model that is trained from scratch on a CPU, to try a dataset."""
    resolution = choose_resolution(objects, CPU_SHORT)
    boxes = scaled_boxes(objects, resolution.short, resolution.longest)
    why = "a small model from scratch, to try the data on a CPU; --memory suggests for a GPU"
    settings, reason = model_part(CPU_RECIPE, objects, why)
    return _joined(
        CPU_RECIPE,
        (settings | {"MODEL.DEVICE": "cpu", "OUTPUT_DIR": "output"}, reason),
        images_part(resolution),
        anchors_part(choose_anchors(boxes), keep_default=False),
        detections_part(objects),
    )


def _joined(recipe: str, *parts: Part) -> Suggestion:
    settings = {key: value for part, _ in parts for key, value in part.items()}
    return Suggestion(recipe, settings, [reason for _, reason in parts])


def _fit(objects: ObjectSizes, memory: float) -> _Fit:
    """Return the largest recipe for the number of images, at the largest useful resolution.

    The resolution is reduced last, because objects that are too small are never found.
    """
    recipes = [name for name, images in RECIPES if len(objects.images) >= images]
    wanted = choose_resolution(objects)
    edges = [edge for edge in reversed(SHORT_EDGES) if edge <= wanted.short]
    for edge in edges:
        resolution = choose_resolution(objects, edge)
        for recipe in recipes:
            for checkpointing, least in ((False, 2), (True, 2), (True, 1)):
                needed = _memory_of(objects, recipe, checkpointing, resolution)
                if (images := needed.images(memory)) >= least:
                    return _Fit(recipe, checkpointing, resolution, needed, images)
    raise ValueError(
        f"{memory / GIB:.1f} GiB are too little: {recipes[-1]} with one image of a short edge of "
        f"{edges[-1]} pixels needs {needed.total(1) / GIB:.1f} GiB; train the heads alone, or "
        "crop the images (docs/TUNING.md)"
    )


def _memory_of(
    objects: ObjectSizes, recipe: str, checkpointing: bool, resolution: Resolution
) -> DetectorMemory:
    crowded = int(np.quantile(objects.per_image, 0.99))
    size = (resolution.short, resolution.longest)
    return recipe_memory(recipe, size, checkpointing, has_masks(objects), crowded)


@lru_cache
def recipe_memory(
    recipe: str, size: tuple[int, int], checkpointing: bool, masks: bool = True, objects: int = 10
) -> DetectorMemory:
    """Count the memory of training a recipe on a GPU; see :func:`detector_memory`.

    Args:
        recipe: name of a Mask R-CNN's recipe.
        masks: predict masks.
    """
    opts = ["MODEL.DEVICE", "meta", "MODEL.WEIGHTS", "", "MODEL.SWINV2.KERNEL", "triton"]
    opts += ["MODEL.SWINV2.ACTIVATION_CHECKPOINTING", str(checkpointing)]
    opts += ["MODEL.MASK_ON", str(masks)]
    return detector_memory(load_config(str(config_path(recipe)), opts), size, objects)


def _why_model(objects: ObjectSizes, fit: _Fit, memory: float) -> str:
    suited = next(name for name, images in RECIPES if len(objects.images) >= images)
    why = f"{len(objects.images)} images with objects suit {suited}"
    if fit.recipe != suited:
        why += f", which does not fit into {memory / GIB:.1f} GiB"
    if fit.checkpointing:
        why += "; activation checkpointing makes it fit, and takes more time"
    return why


def _batch(fit: _Fit, gpus: int, batch: int, memory: float) -> Part:
    """Divide the images of a step into the fewest equal parts that fit."""
    each = batch // gpus
    parts = next(n for n in range(1, each + 1) if each % n == 0 and each // n <= fit.images)
    settings: dict[str, Any] = {"SOLVER.IMS_PER_BATCH": batch}
    words = f"{batch} images a step"
    if parts > 1:
        settings["SOLVER.ACCUMULATE"] = parts
        words += f", in {parts} parts (SOLVER.ACCUMULATE)"
    needed = fit.memory.total(each // parts) / GIB
    why = (
        f"{each // parts} images at once need about {needed:.1f} of {memory / GIB:.1f} GiB of "
        "each GPU"
    )
    return settings, Reason(words, why)


def _schedule(images: int, batch: int) -> Part:
    length = max(round(EPOCHS * images / batch), round(SHORTEST * BATCH / batch))
    epochs = length * batch / images
    settings = {
        "SOLVER.MAX_ITER": length,
        "SOLVER.STEPS": [length * drop // EPOCHS for drop in DROPS],
        "SOLVER.WARMUP_ITERS": min(round(1000 * BATCH / batch), length // 10),
        "TEST.EVAL_PERIOD": max(length // EVALUATIONS, 1),
    }
    why = f"{epochs:.0f} epochs, as in the recipe"
    if epochs > EPOCHS + 1:
        why = f"{epochs:.0f} epochs: also a small dataset needs {SHORTEST} steps of {BATCH} images"
    return settings, Reason(f"{length} iterations", why)


def _rate(batch: int) -> Part:
    """Scale AdamW's learning rate by the square root of the batch size."""
    rate = float(f"{RATE * (batch / BATCH) ** 0.5:.2g}")
    why = "the recipe's, for its batch size"
    if batch != BATCH:
        why = f"{RATE:g} for {BATCH} images, times the square root of {batch} / {BATCH} (AdamW)"
    return {"SOLVER.BASE_LR": rate}, Reason(f"learning rate {rate:g}", why)
