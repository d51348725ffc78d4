"""UPerNet equals the reference of ``upernet_oracle``."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_model
from upernet_oracle import upernet, upernet_loss

from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.modeling.upernet import UPerNetHead

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
CHANNELS = {"res2": 6, "res3": 12, "res4": 24, "res5": 48}
SHAPES = {name: ShapeSpec(channels=CHANNELS[name], stride=STRIDES[name]) for name in STRIDES}
SIZES = [(64, 64), (77, 53), (33, 130), (5, 3)]
CLASSES = 5


def head(norm: str = "GN", **options) -> UPerNetHead:
    """Build a head with random weights, norms and running statistics, in float64."""
    torch.manual_seed(0)
    built = UPerNetHead(SHAPES, num_classes=CLASSES, channels=64, norm=norm, **options).double()
    for tensor in (*built.parameters(), *built.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5) if tensor.ndim == 1 else tensor.data.normal_(std=0.1)
    return built


def features(size: tuple[int, int], batch: int = 2) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        name: torch.randn(batch, CHANNELS[name], -(-size[0] // s), -(-size[1] // s)).double()
        for name, s in STRIDES.items()
    }


def weights(built: UPerNetHead) -> dict:
    """Return the head's weights under the oracle's names."""

    def conv(module) -> dict:
        found = {
            "weight": module.weight,
            "norm_weight": module.norm.weight,
            "norm_bias": module.norm.bias,
        }
        if not built.training and hasattr(module.norm, "running_mean"):
            found |= {
                "running_mean": module.norm.running_mean,
                "running_var": module.norm.running_var,
            }
        return found

    def plain(module) -> dict:
        return {"weight": module.weight, "bias": module.bias}

    return {
        **{f"ppm.{i}": conv(module) for i, module in enumerate(built.pooling.convs)},
        "bottleneck": conv(built.pooling.bottleneck),
        **{f"lateral.{name}": conv(module) for name, module in built.laterals.items()},
        **{f"fpn.{name}": conv(module) for name, module in built.outputs.items()},
        "fusion": conv(built.fusion),
        "predictor": plain(built.predictor),
        "aux": conv(built.auxiliary[0]),
        "aux_predictor": plain(built.auxiliary[2]),
    }


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("norm", "groups"), [("GN", 32), ("BN", None)])
def test_logits_equal_the_oracles(size, norm, groups):
    built, inputs = head(norm).eval(), features(size)
    with torch.no_grad():
        logits, _ = upernet(inputs, weights(built), groups=groups)
        torch.testing.assert_close(built.predictor(built.fuse(inputs)), logits)
        upsampled, losses = built(inputs)
    assert upsampled.shape[-2:] == (4 * logits.shape[-2], 4 * logits.shape[-1])
    assert losses == {}


@pytest.mark.parametrize("size", SIZES)
def test_losses_and_gradients_equal_the_oracles(size):
    built, inputs = head(dropout=0.0, loss_weight=2.0).train(), features(size)
    for value in inputs.values():
        value.requires_grad_()
    labels = torch.randint(0, CLASSES, (2, *size))
    labels[torch.rand(labels.shape) < 0.3] = 255
    _, losses = built(inputs, labels)
    logits, aux_logits = upernet(inputs, weights(built), groups=32)
    main, aux = upernet_loss(logits, aux_logits, labels)
    # The head's own cross entropy is in float32.
    close = {"rtol": 1e-5, "atol": 1e-6}
    torch.testing.assert_close(losses["loss_sem_seg"].double(), 2.0 * main, **close)
    torch.testing.assert_close(losses["loss_sem_seg_aux"].double(), 0.4 * aux, **close)
    wanted = [*inputs.values(), *built.parameters()]
    ours = torch.autograd.grad(sum(losses.values()), wanted, retain_graph=True)
    theirs = torch.autograd.grad(2.0 * main + 0.4 * aux, wanted)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_without_labels_has_a_loss_of_zero():
    built = head().train()
    _, losses = built(features((64, 64)), torch.full((2, 64, 64), 255))
    assert all(loss.item() == 0 for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in built.parameters())


def test_dropout_is_active_in_training_only():
    built = head(dropout=0.9)
    inputs = features((64, 64))
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    losses = [float(built.train()(inputs, labels)[1]["loss_sem_seg"].detach()) for _ in range(2)]
    assert losses[0] != losses[1]
    first, second = (built.eval()(inputs)[0] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_auxiliary_head_is_optional_and_may_use_another_feature():
    assert not hasattr(head(aux_in_feature=None), "auxiliary")
    built = head(aux_in_feature="res3", aux_channels=32).train()
    _, losses = built(features((64, 64)), torch.zeros(2, 64, 64, dtype=torch.int64))
    assert built.auxiliary[0].in_channels == CHANNELS["res3"]
    assert set(losses) == {"loss_sem_seg", "loss_sem_seg_aux"}
    with pytest.raises(ValueError, match="'res1'.*AUX_IN_FEATURE.*res2"):
        head(aux_in_feature="res1")


SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.META_ARCHITECTURE", "SemanticSegmentor"),
    *("MODEL.BACKBONE.NAME", "build_swinv2_backbone", "MODEL.SWINV2.EMBED_DIM", "16"),
    *("MODEL.SWINV2.DEPTHS", "(1, 1, 1, 1)", "MODEL.SWINV2.NUM_HEADS", "(1, 2, 4, 8)"),
    *("MODEL.SWINV2.WINDOW_SIZE", "4", "MODEL.SEM_SEG_HEAD.NAME", "UPerNetHead"),
    *("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2', 'res3', 'res4', 'res5']"),
    *("MODEL.SEM_SEG_HEAD.CONVS_DIM", "64", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
    *("MODEL.PIXEL_MEAN", "[123.675, 116.280, 103.530]"),
]


def segmentor(*opts: str):
    torch.manual_seed(0)
    return build_model(load_config("", [*SMALL, *opts]))


def test_config_reaches_the_head():
    assert "UPerNetHead" in SEM_SEG_HEADS_REGISTRY
    built = segmentor(
        *("MODEL.UPERNET.POOL_SCALES", "(1, 2)", "MODEL.UPERNET.DROPOUT", "0.3"),
        *("MODEL.UPERNET.AUX_IN_FEATURE", "res3", "MODEL.UPERNET.AUX_CONVS_DIM", "96"),
        *("MODEL.UPERNET.AUX_LOSS_WEIGHT", "0.7", "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", "1.5"),
        *("MODEL.SEM_SEG_HEAD.NORM", "BN", "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", "9"),
    ).sem_seg_head
    assert built.pooling.scales == (1, 2) and built.dropout.p == 0.3
    assert built.aux_in_feature == "res3" and built.auxiliary[0].out_channels == 96
    assert built.aux_loss_weight == 0.7 and built.loss_weight == 1.5 and built.ignore_value == 9
    assert isinstance(built.fusion.norm, torch.nn.BatchNorm2d) and built.fusion.out_channels == 64
    assert built.predictor.out_channels == 3


def test_a_feature_that_the_backbone_does_not_return_is_named():
    with pytest.raises(ValueError, match="IN_FEATURES p2.*res2, res3, res4, res5"):
        segmentor("MODEL.SEM_SEG_HEAD.IN_FEATURES", "['p2', 'res5']")


@pytest.mark.parametrize("size", [(64, 64), (53, 70), (97, 33), (31, 9)])
def test_predictions_have_exactly_the_requested_size(size):
    model = segmentor().eval()
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    with torch.no_grad():
        (own,) = model([{"image": image}])
        (other,) = model([{"image": image, "height": 101, "width": 47}])
    assert own["sem_seg"].shape == (3, *size)
    assert other["sem_seg"].shape == (3, 101, 47)


@pytest.mark.parametrize("sizes", [[(64, 64), (64, 64)], [(53, 70), (97, 33)]])
def test_training_accepts_images_of_any_and_of_different_sizes(sizes):
    model = segmentor().train()
    batch = [
        {
            "image": torch.randint(0, 256, (3, *size), dtype=torch.uint8),
            "sem_seg": torch.randint(0, 3, size),
        }
        for size in sizes
    ]
    sum(model(batch).values()).backward()
    without = [name for name, p in model.named_parameters() if p.grad is None]
    assert not without


def test_losses_are_in_float32_under_autocast():
    model = segmentor().train()
    batch = [{"image": torch.ones(3, 64, 64), "sem_seg": torch.ones(64, 64, dtype=torch.int64)}] * 2
    with torch.autocast("cpu", torch.bfloat16):
        assert all(loss.dtype == torch.float32 for loss in model(batch).values())


@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_batch_norm_on_one_image_is_refused_with_the_remedies(norm):
    model = segmentor("MODEL.SEM_SEG_HEAD.NORM", norm).train()
    image = {"image": torch.ones(3, 64, 64), "sem_seg": torch.ones(64, 64, dtype=torch.int64)}
    with pytest.raises(ValueError, match=f"{norm}.*SOLVER.ACCUMULATE.*MODEL.SEM_SEG_HEAD.NORM GN"):
        model([image])
    model([image, image])
    with torch.no_grad():
        model.eval()([image])


def test_too_few_channels_for_group_norm_are_refused():
    with pytest.raises(ValueError, match="at least 64 channels.*CONVS_DIM is 32"):
        UPerNetHead(SHAPES, num_classes=CLASSES, channels=32, norm="GN")
