"""The LazyCalls of a LazyConfig, translated to the values that the YAML dialect has for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from swinv2_backbone.d2.config.options import plain

SCHEDULES = {
    "MultiStepParamScheduler": "WarmupMultiStepLR",
    "CosineParamScheduler": "WarmupCosineLR",
    "PolynomialDecayParamScheduler": "WarmupPolyLR",
}
CLIP = ("kind", "value", "norm_type")


def target_name(node: DictConfig) -> str:
    """Return the name of the class or function that a LazyCall calls, without its module."""
    target = node["_target_"]
    if isinstance(target, str):
        return target.rpartition(".")[2]
    return getattr(target, "__name__", type(target).__name__)  # a partial has no name


def calls(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Yield each LazyCall of a config, with its path."""
    if OmegaConf.is_dict(node):
        if "_target_" in node:
            yield path, node
        for key in node:
            if not OmegaConf.is_interpolation(node, key):
                yield from calls(node._get_node(key), f"{path}.{key}")
    elif OmegaConf.is_list(node):
        for index in range(len(node)):
            yield from calls(node._get_node(index), f"{path}.{index}")


def schedule(config: DictConfig, faults: list[str]) -> dict[str, Any]:
    """Read ``lr_multiplier``."""
    node = config.lr_multiplier
    found: dict[str, Any] = {}
    if "scheduler" in node:  # a schedule with warm-up
        length, iterations = node.get("warmup_length", 0), config.train.max_iter
        if not isinstance(length, (int, float)) or length < 0:
            faults.append(f"lr_multiplier.warmup_length must be a number, at least 0, got {length}")
        elif isinstance(iterations, int):  # otherwise max_iter is the error
            found["schedule.warmup_iters"] = round(length * iterations)
        node = node.scheduler
    name = target_name(node)
    found["schedule.name"] = SCHEDULES.get(name, name)
    if name == "MultiStepParamScheduler":
        found["schedule.steps"] = plain(node.get("milestones", ()))
        factors = plain(node.get("values"))
        if isinstance(factors, tuple) and len(factors) > 1 and factors[0]:
            found["schedule.gamma"] = round(factors[1] / factors[0], 12)
    if "power" in node:
        found["schedule.poly_power"] = node.power
    return found


def clipping(config: DictConfig, faults: list[str]) -> dict[str, Any]:
    """Read ``train.clip``: None, or a dict."""
    node = config.train.clip
    if node is None:
        return {"clipping.enabled": False}
    if not OmegaConf.is_dict(node) or not {"kind", "value"} <= set(node) <= set(CLIP):
        faults.append(
            "train.clip must be None or a dict with kind, value and optionally norm_type, "
            f"got {node}"
        )
        return {"clipping.enabled": False}
    return {"clipping.enabled": True, **{f"clipping.{key}": node[key] for key in node}}


def detections_key(model: DictConfig) -> str:
    """Return the key of the maximum number of detections per image; "" if there is none."""
    heads = model.get("roi_heads")
    if OmegaConf.is_dict(heads):
        if OmegaConf.is_list(heads.get("box_predictors")):  # of a cascade; the last one counts
            last = len(heads.box_predictors) - 1
            return f"model.roi_heads.box_predictors.{last}.test_topk_per_image"
        return "model.roi_heads.box_predictor.test_topk_per_image"
    if target_name(model) == "MaskTransformer":
        return "model.detections_per_image"
    return "model.max_detections_per_image" if "head_in_features" in model else ""


def limits(config: DictConfig, places: Mapping[str, str]) -> dict[str, Any]:
    """Read the maximum numbers of detections and proposals, as far as the config has them."""
    options = {
        "evaluation.detections_per_image": places["detections"],
        "evaluation.proposals_per_image": places["proposals"],
    }
    found = {name: OmegaConf.select(config, key) if key else None for name, key in options.items()}
    return {name: value for name, value in found.items() if value is not None}


def augmentation(config: DictConfig, faults: list[str]) -> dict[str, Any]:
    """Read the augmentations of the mappers of ``dataloader``; custom ones have no option."""
    found: dict[str, Any] = {"augmentation.flip": "none"}
    for call in _augmentations(config, "train"):
        name, get = target_name(call), call.get
        if name == "ResizeShortestEdge":
            sizes = plain(get("short_edge_length"))
            several = isinstance(sizes, tuple)  # a single length is not sampled
            found["augmentation.min_size"] = sizes if several else (sizes,)
            found["augmentation.max_size"] = get("max_size", 2**63 - 1)
            found["augmentation.sample_style"] = (
                get("sample_style", "range") if several else "choice"
            )
        elif name == "ResizeScale":
            found["augmentation.lsj"] = True
            found["augmentation.lsj_size"] = get("target_height")
            found["augmentation.lsj_min_scale"] = get("min_scale")
            found["augmentation.lsj_max_scale"] = get("max_scale")
        elif name in ("RandomCrop", "RandomCrop_CategoryAreaConstraint"):
            found["augmentation.crop"] = True
            found["augmentation.crop_type"] = get("crop_type")
            found["augmentation.crop_size"] = plain(get("crop_size"))
            found["augmentation.crop_single_category"] = get("single_category_max_area", 1.0)
        elif name == "ColorAugmentation":
            found["augmentation.color"] = True
        elif name == "RandomFlip":
            vertical = get("vertical", False)
            found["augmentation.flip"] = "vertical" if vertical else "horizontal"
    for call in _augmentations(config, "test"):
        if target_name(call) == "ResizeShortestEdge":
            sizes = plain(call.get("short_edge_length"))
            one = sizes[0] if isinstance(sizes, tuple) and sizes else sizes
            found["augmentation.test_min_size"] = one
            found["augmentation.test_max_size"] = call.get("max_size", 2**63 - 1)
    return found


def resizes(config: DictConfig, split: str) -> bool:
    """Return True if the mapper of a split resizes images in a way that is an option."""
    names = [target_name(call) for call in _augmentations(config, split)]
    return "ResizeShortestEdge" in names or "ResizeScale" in names


def _augmentations(config: DictConfig, split: str) -> list[DictConfig]:
    found = OmegaConf.select(config, f"dataloader.{split}.mapper.augmentations") or []
    return [call for call in found if OmegaConf.is_dict(call) and "_target_" in call]
