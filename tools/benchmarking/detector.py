"""Whole detectors: Mask R-CNN with an FPN on different backbones.

The backbones are ours, Detectron2's R50, and its Swin V1, which is only in its main branch.
Weights are random; images and objects are generated.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarking.candidates import OURS
from benchmarking.comparison import Plan, progress
from benchmarking.machine import describe
from benchmarking.results import Content
from benchmarking.settings import Setting
from benchmarking.timing import alternate, device_clock, in_milliseconds, stopwatch

if TYPE_CHECKING:  # Detectron2 is only needed for this comparison
    from detectron2.config import CfgNode
    from detectron2.structures import Instances

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "mask_rcnn_swinv2.yaml"
OBJECTS = 10  # per image
SWIN_V1 = "detectron2.modeling.backbone.swin"


def detector_config(setting: Setting) -> CfgNode:
    """Return our recipe with random weights, for the setting's model, window and device."""
    from swinv2_backbone.d2.config.yacs import load_config

    options = {
        "MODEL.WEIGHTS": "",
        "MODEL.DEVICE": setting.device,
        "MODEL.SWINV2.VARIANT": setting.model,
        "MODEL.SWINV2.WINDOW_SIZE": str(setting.window),
        "MODEL.SWINV2.DROP_PATH_RATE": "0.0",
    }
    return load_config(str(CONFIG), [part for pair in options.items() for part in pair])


def build_ours(setting: Setting) -> nn.Module:
    from detectron2.modeling import build_model

    return build_model(detector_config(setting))


def build_r50(setting: Setting) -> nn.Module:
    """Build the detector on Detectron2's ResNet-50 at its defaults.

    In training, its batch norms, stem and first stage are frozen, as is usual.
    """
    from detectron2.modeling import build_model

    cfg = detector_config(setting)
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    return build_model(cfg)


def build_swin_v1(setting: Setting) -> nn.Module:
    """Build the detector on Detectron2's Swin V1 with our width, depths and heads."""
    from detectron2.modeling.backbone import FPN
    from detectron2.modeling.backbone.fpn import LastLevelMaxPool

    variant, cfg = setting.variant, detector_config(setting)
    bottom_up = swin_v1(variant.embed_dim, variant.depths, variant.num_heads)
    model = build_ours(setting)
    model.backbone = FPN(
        bottom_up=bottom_up,
        in_features=list(bottom_up.output_shape()),
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    ).to(setting.device)
    return model


def swin_v1(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> Any:
    """Return Detectron2's Swin V1 at its defaults (window 7), without drop path."""
    return importlib.import_module(SWIN_V1).SwinTransformer(
        embed_dim=embed_dim,
        depths=list(depths),
        num_heads=list(num_heads),
        drop_path_rate=0.0,
    )


def unfit_swin_v1() -> str | None:
    """Return why there is no Swin V1 to compare with, or None."""
    try:
        importlib.import_module(SWIN_V1)
    except ImportError:
        return (
            f"the installed Detectron2 has no {SWIN_V1}, which is only in its main branch "
            "(put a checkout of it on PYTHONPATH)"
        )
    return None


BUILDERS: dict[str, Callable[[Setting], nn.Module]] = {
    OURS: build_ours,
    "detectron2 R50": build_r50,
    "detectron2 Swin V1 (window 7)": build_swin_v1,
}


def unavailable() -> str | None:
    """Return why no detector can be built at all, or None."""
    try:
        importlib.import_module("detectron2")
    except ImportError:
        return "--detector needs Detectron2, which is not installed"
    return None


def build_detectors(setting: Setting) -> tuple[dict[str, nn.Module], dict[str, str]]:
    """Return the detectors by name, and the reasons why others are left out."""
    models: dict[str, nn.Module] = {}
    left_out: dict[str, str] = {}
    for name, build in BUILDERS.items():
        reason = unfit_swin_v1() if build is build_swin_v1 else None
        if reason:
            left_out[name] = reason
            continue
        torch.manual_seed(0)
        models[name] = with_detections(build(setting)).train(setting.training)
    return models, left_out


@torch.no_grad()
def with_detections(model: nn.Module) -> nn.Module:
    """Raise the score of the first class in every proposal; return the detector.

    Otherwise, with random weights, no score would pass the threshold and no mask would be computed.
    With the higher score, every backbone gives the maximum number of detections.
    """
    model.get_parameter("roi_heads.box_predictor.cls_score.bias")[0] += 10
    return model


def random_batch(setting: Setting) -> list[dict[str, Any]]:
    """Return images of the setting's size with objects, in Detectron2's input format."""
    generator = torch.Generator().manual_seed(1)
    height, width = setting.size
    batch = []
    for _ in range(setting.batch):
        image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
        objects = _random_objects(setting, generator)
        batch.append({"image": image, "height": height, "width": width, "instances": objects})
    return batch


def _random_objects(setting: Setting, generator: torch.Generator) -> Instances:
    from detectron2.structures import BitMasks, Boxes, Instances

    height, width = setting.size
    corners = torch.rand(OBJECTS, 2, generator=generator) * 0.7
    sides = 0.05 + torch.rand(OBJECTS, 2, generator=generator) * 0.25
    boxes = torch.cat([corners, corners + sides], dim=1) * torch.tensor([width, height] * 2)
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist()):
        mask[y0 : y1 + 1, x0 : x1 + 1] = True
    found = Instances(setting.size, gt_boxes=Boxes(boxes), gt_masks=BitMasks(masks))
    found.gt_classes = torch.arange(OBJECTS) % 80
    return found


def step(model: nn.Module, batch: list[dict], setting: Setting) -> Callable[[], object]:
    """Return a call that runs one inference, or forward and backward of one training step."""
    from detectron2.utils.events import EventStorage

    mixed = torch.autocast(setting.device, setting.torch_dtype, enabled=setting.dtype != "float32")

    @torch.no_grad()
    def inference() -> list:
        with mixed:
            return model(batch)

    def training() -> None:
        model.zero_grad(set_to_none=True)
        with EventStorage(), mixed:
            losses: dict[str, Tensor] = model(batch)
        torch.stack(list(losses.values())).sum().backward()

    return training if setting.training else inference


def compare_detectors(setting: Setting, plan: Plan) -> Content:
    """Time every detector; return the content of a result."""
    torch.set_num_threads(setting.threads)
    models, left_out = build_detectors(setting)
    batch, clock = random_batch(setting), device_clock(setting.device)
    runs = {name: stopwatch(step(model, batch, setting), clock) for name, model in models.items()}
    progress(f"  timing {', '.join(runs)}")
    seconds = alternate(runs, plan.rounds, warmup=plan.warmup, time_limit=plan.time_limit)
    return {
        "setting": setting.as_json(),
        "machine": describe(setting.device, setting.threads),
        "detectors": in_milliseconds(seconds),
        "left_out": left_out,
        "failed": {},
    }
