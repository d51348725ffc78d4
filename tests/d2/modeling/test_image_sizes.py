"""True sizes that travel beside the images: black images and means that a pixel can equal."""

import copy

import pytest
import torch
import torch.distributed as dist
from detectron2 import modeling
from detectron2.config import instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from oracle import randomize
from small_configs import lazy_config, yaml_config
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from swinv2_backbone.d2 import build_model, plan_from_lazy, with_true_sizes
from swinv2_backbone.d2.engine.parallel import shard_model
from swinv2_backbone.d2.evaluation.tta import with_augmentation
from swinv2_backbone.d2.modeling import D2SwinV2
from swinv2_backbone.d2.modeling.image_sizes import attached_sizes

RECIPES = [
    "mask_rcnn_swinv2",
    "cascade_mask_rcnn_swinv2_tiny",
    "retinanet_swinv2_base",
    "panoptic_fpn_swinv2_tiny",
    "upernet_swinv2_tiny_ade20k",
]
SIZES = [(40, 52), (70, 61)]


def black_mean(stem: str):
    cfg = yaml_config(stem, small=True)
    cfg.MODEL.PIXEL_MEAN = [0.0, 0.0, 0.0]
    return cfg


def built(stem: str) -> nn.Module:
    torch.manual_seed(0)
    model = build_model(black_mean(stem))
    randomize(backbone_of(model).swinv2, seed=0)
    return model.eval()


def backbone_of(model: nn.Module) -> D2SwinV2:
    (found,) = [part for part in model.modules() if isinstance(part, D2SwinV2)]
    return found


def black(*sizes: tuple[int, int]) -> list[dict]:
    return [{"image": torch.zeros(3, *size), "height": size[0], "width": size[1]} for size in sizes]


def features(model: nn.Module, inputs: list[dict], call=None) -> dict[str, Tensor]:
    """The features that the backbone returns in a call of the model."""
    seen: list[dict] = []
    hook = backbone_of(model).register_forward_hook(lambda _, args, output: seen.append(output))
    with torch.no_grad(), hook:
        (call or model)(inputs)
    return seen[0]


def assert_padding_has_no_effect(model: nn.Module) -> None:
    alone, together = features(model, black(SIZES[0])), features(model, black(*SIZES))
    for name, feature in together.items():
        stride = backbone_of(model).swinv2.strides[name]
        rows, columns = (-(-side // stride) for side in SIZES[0])
        expected = alone[name][0, :, :rows, :columns]
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(feature[0, :, :rows, :columns], expected, atol=1e-5, rtol=0)
        assert not feature[0, :, rows:].any() and not feature[0, :, :, columns:].any()


@pytest.mark.parametrize("stem", RECIPES)
def test_features_of_black_images_do_not_depend_on_padding(stem):
    assert_padding_has_no_effect(built(stem))


@pytest.mark.parametrize("stem", ["mask_rcnn_swinv2", "upernet_swinv2_tiny_ade20k"])
def test_a_lazy_config_hands_over_the_sizes_too(stem):
    cfg = lazy_config(stem, small=True)
    cfg.model.pixel_mean = [0, 0, 0]
    model = plan_from_lazy(cfg).factories.model().eval()
    randomize(backbone_of(model).swinv2, seed=0)
    assert_padding_has_no_effect(model)


@pytest.mark.parametrize("stem", ["mask_rcnn_swinv2", "upernet_swinv2_tiny_ade20k"])
def test_a_copy_hands_over_the_sizes_of_its_own_images(stem):
    model = built(stem)
    other = copy.deepcopy(model)
    for buffer in (model.pixel_mean, model.pixel_std):  # the copy must not use its original
        buffer.fill_(torch.nan)
    assert_padding_has_no_effect(other)


def test_the_sizes_are_forgotten_after_each_call_even_a_failed_one():
    model = built("upernet_swinv2_tiny_ade20k")
    with pytest.raises(RuntimeError):
        model([{"image": torch.zeros(5, 8, 8)}])
    with pytest.raises(ValueError, match="the batch has no true sizes"):
        model.backbone(torch.zeros(1, 3, 64, 64))
    features(model, black(SIZES[0]))
    with pytest.raises(ValueError, match="the batch has no true sizes"):
        model.backbone(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("stem", ["mask_rcnn_swinv2", "upernet_swinv2_tiny_ade20k"])
def test_test_time_augmentation_hands_over_the_sizes_of_every_version(stem):
    model, seen = built(stem), []
    hook = backbone_of(model).register_forward_pre_hook(
        lambda _, args: seen.append(attached_sizes(args[0]))
    )
    with torch.no_grad(), hook:
        with_augmentation(model, [32, 48], 64, flip=False)(black((30, 40)))
    assert [size for batch in seen for size in batch][:2] == [(32, 43), (48, 64)]


def test_training_with_activation_checkpointing_uses_the_sizes():
    cfg = black_mean("mask_rcnn_swinv2")
    losses = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        cfg.MODEL.SWINV2.ACTIVATION_CHECKPOINTING = checkpointing
        model = build_model(cfg)
        randomize(backbone_of(model).swinv2, seed=0)
        inputs = black(*SIZES)
        for one in inputs:
            truth = Instances((one["height"], one["width"]))
            truth.gt_boxes, truth.gt_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0).long()
            one["instances"] = truth
        model.roi_heads.mask_on = False  # there are no masks
        with EventStorage():
            found = sum(model(inputs).values())
        found.backward()
        gradient = backbone_of(model).swinv2.patch_embed.proj.bias.grad
        losses.append((found.detach(), gradient))
    torch.testing.assert_close(losses[0], losses[1])


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("stem", ["mask_rcnn_swinv2", "semantic_fpn_swinv2_tiny_ade20k"])
@pytest.mark.parametrize("wrapper", ["DistributedDataParallel", "fully_shard"])
def test_a_distributed_model_hands_over_the_sizes(wrapper, stem, process_group):
    model = built(stem)
    if wrapper == "fully_shard":
        shard_model(model, "all")
    else:
        model = DistributedDataParallel(model)
    assert_padding_has_no_effect(model)


@META_ARCH_REGISTRY.register()
class BareTensor(nn.Module):
    """A meta-architecture of someone else, which batches images by its own code."""

    def __init__(self, cfg):
        super().__init__()
        self.backbone = modeling.build_backbone(cfg)
        self.register_buffer("pixel_mean", torch.tensor(cfg.MODEL.PIXEL_MEAN).view(-1, 1, 1), False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.backbone(images)


def bare(mean: list[float]):
    cfg = yaml_config("upernet_swinv2_tiny_ade20k", small=True)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PIXEL_MEAN = "BareTensor", mean
    return cfg


def test_a_foreign_architecture_is_refused_where_a_pixel_can_be_zero():
    with pytest.raises(ValueError, match=r"PIXEL_MEAN \[0.0, .*MODEL.SWINV2.MASK_PADDING False"):
        build_model(bare([0.0, 0.0, 0.0]))
    cfg = bare([0.0, 0.0, 0.0])
    cfg.MODEL.SWINV2.MASK_PADDING = False
    assert not attached_sizes(torch.zeros(1)) and build_model(cfg)


def test_a_foreign_architecture_of_a_lazy_config_is_refused_too():
    cfg = lazy_config("upernet_swinv2_tiny_ade20k", small=True)
    model = BareTensor(bare([0.5, 0.5, 0.5]))
    model.backbone = instantiate(cfg.model.backbone)
    assert with_true_sizes(model) is model
    model.pixel_mean = torch.zeros(3)
    with pytest.raises(ValueError, match="mask_padding=False"):
        with_true_sizes(model)


def test_a_foreign_architecture_keeps_the_rule_of_zeros():
    model = build_model(bare([0.5, 0.5, 0.5])).eval()
    batch = torch.zeros(1, 3, 64, 64)
    batch[:, :, :40, :40] = torch.randn(3, 40, 40)
    with torch.inference_mode():
        assert not model(batch)["res2"][0, :, 12:].any()
        assert model(batch)["res2"][0, :, :10, :10].any()


def test_a_model_built_by_detectron2_alone_refuses_to_take_pixels_for_padding():
    model = modeling.build_model(black_mean("mask_rcnn_swinv2")).eval()
    with pytest.raises(ValueError, match="swinv2_backbone.d2.build_model, or set MODEL.SWINV2"):
        model(black(SIZES[0]))
