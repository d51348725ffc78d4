"""The Detectron2 backbones: registration, configs, FPN, and the padding of batches."""

import pytest
import torch
import yaml
from detectron2.config import LazyCall as L
from detectron2.config import get_cfg, instantiate
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, build_backbone, build_model
from detectron2.modeling.backbone import build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from oracle import randomize
from scripts import ROOT
from small_configs import yaml_config

import swinv2_backbone.d2
from swinv2_backbone.d2 import D2SwinV2, add_swinv2_config, feature_shapes
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.modeling import trainer_keys
from swinv2_backbone.d2.modeling.backbone import true_sizes

CONFIGS = ROOT / "configs"
SMALL = [
    "MODEL.SWINV2.EMBED_DIM",
    "16",
    "MODEL.SWINV2.DEPTHS",
    "(1, 2, 1, 1)",
    "MODEL.SWINV2.NUM_HEADS",
    "(1, 2, 4, 8)",
    "MODEL.SWINV2.WINDOW_SIZE",
    "4",
]


def small_config(name: str, *opts: str):
    return load_config(
        "",
        [
            "MODEL.DEVICE",
            "cpu",
            "MODEL.BACKBONE.NAME",
            name,
            "MODEL.FPN.IN_FEATURES",
            "['res2', 'res3', 'res4', 'res5']",
            "MODEL.FPN.OUT_CHANNELS",
            "8",
            *SMALL,
            *opts,
        ],
    )


def build(name: str, *opts: str):
    return build_backbone(small_config(name, *opts), ShapeSpec(channels=3))


@pytest.mark.parametrize(
    "name",
    ["build_swinv2_backbone", "build_swinv2_fpn_backbone", "build_retinanet_swinv2_fpn_backbone"],
)
def test_importing_the_plugin_registers_the_backbones(name):
    assert name in BACKBONE_REGISTRY


def test_add_swinv2_config_adds_the_backbones_node_and_the_heads_to_a_plain_config():
    cfg = get_cfg()
    before = set(cfg.MODEL)
    add_swinv2_config(cfg)
    assert set(cfg.MODEL) - before == {"SWINV2", "UPERNET", "MASK_TRANSFORMER"}


def test_add_swinv2_config_changes_no_key_that_a_config_has():
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "LION"
    before = cfg.clone()
    add_swinv2_config(cfg)
    again = cfg.clone()
    again.merge_from_other_cfg(before)
    assert again == cfg


@pytest.mark.parametrize("stem", ["mask_rcnn_swinv2_demo", "upernet_swinv2_tiny_ade20k"])
def test_a_plain_detectron2_program_reads_what_the_tools_write(stem, tmp_path):
    written = yaml_config(stem)
    written.SOLVER.CHECKPOINTS_KEPT, written.SOLVER.TIME_LIMIT = 3, 60.0
    written.DATASETS.CUSTOM.CLASSES = ["date", "fig"]
    written.MODEL.SWINV2.WINDOW_SIZE = [16, 16, 16, 8]
    (tmp_path / "config.yaml").write_text(written.dump())
    cfg = get_cfg()
    add_swinv2_config(cfg)
    cfg.merge_from_file(str(tmp_path / "config.yaml"))
    assert yaml.safe_load(cfg.dump()) == yaml.safe_load(written.dump())


def test_keys_that_only_our_trainer_obeys_are_named_once(monkeypatch):
    monkeypatch.setattr(trainer_keys, "_logged", set())
    logged: list[str] = []
    monkeypatch.setattr(trainer_keys.logger, "warning", logged.append)
    cfg = small_config("build_swinv2_backbone")
    cfg.SOLVER.EMA.ENABLED, cfg.TEST.BEST_METRIC = True, "bbox/AP"
    swinv2_backbone.d2.build_model(cfg, build_backbone)
    assert not logged  # our trainer, predictor and exports obey them
    build_backbone(cfg)
    build_backbone(cfg)
    (text,) = logged
    for words in ("SOLVER.OPTIMIZER 'ADAMW'", "SOLVER.EMA.ENABLED True", "BEST_METRIC 'bbox/AP'"):
        assert words in text, words
    assert text.count("SOLVER.") == 2  # the others have the effect of Detectron2's trainer


def test_a_backbone_has_the_attributes_of_detectron2s_own():
    ours = build("build_swinv2_backbone", "MODEL.SWINV2.OUT_FEATURES", "['res3', 'res5']")
    cfg = get_cfg()
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res3", "res5"]
    theirs = build_resnet_backbone(cfg, ShapeSpec(channels=3))
    for name in ("_out_features", "_out_feature_channels", "_out_feature_strides"):
        assert type(getattr(ours, name)) is type(getattr(theirs, name)), name
    assert ours._out_features == theirs._out_features
    assert {name: ours._out_feature_strides[name] for name in ours._out_features} == {
        name: theirs._out_feature_strides[name] for name in theirs._out_features
    }
    channels = {name: map.shape[1] for name, map in ours(torch.rand(1, 3, 32, 32)).items()}
    assert {name: ours._out_feature_channels[name] for name in channels} == channels


@pytest.mark.parametrize(
    ("name", "features", "strides"),
    [
        ("build_swinv2_backbone", ["res2", "res3", "res4", "res5"], [4, 8, 16, 32]),
        ("build_swinv2_fpn_backbone", ["p2", "p3", "p4", "p5", "p6"], [4, 8, 16, 32, 64]),
    ],
)
def test_output_shape_equals_the_shapes_of_the_outputs(name, features, strides):
    backbone = build(name)
    outputs = backbone(torch.randn(2, 3, 64, 96))
    assert list(outputs) == list(backbone.output_shape()) == features
    for feature, stride in zip(features, strides, strict=True):
        spec = backbone.output_shape()[feature]
        size = (-(-64 // stride), -(-96 // stride))
        assert spec.stride == stride
        assert outputs[feature].shape == (2, spec.channels, *size)


def test_retinanet_backbone_makes_p6_and_p7_from_res5():
    backbone = build(
        "build_retinanet_swinv2_fpn_backbone", "MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"
    )
    assert list(backbone(torch.randn(1, 3, 64, 64))) == ["p3", "p4", "p5", "p6", "p7"]
    assert backbone.top_block.p6.in_channels == 128


def test_size_divisibility_is_defined_with_and_without_an_fpn():
    assert build("build_swinv2_backbone").size_divisibility == 0
    assert build("build_swinv2_fpn_backbone").size_divisibility == 32


def test_config_reaches_the_model():
    backbone = build(
        "build_swinv2_backbone",
        "MODEL.SWINV2.PRETRAINED_WINDOW_SIZES",
        "(8, 8, 8, 4)",
        "MODEL.SWINV2.SMALL_MAP_RULE",
        "square",
        "MODEL.SWINV2.DROP_PATH_RATE",
        "0.4",
        "MODEL.SWINV2.FROZEN_STAGES",
        "1",
        "MODEL.SWINV2.ACTIVATION_CHECKPOINTING",
        "True",
        "MODEL.SWINV2.KERNEL",
        "reference",
        "MODEL.SWINV2.OUT_FEATURES",
        "['res3', 'res5']",
        "MODEL.SWINV2.MASK_PADDING",
        "False",
    )
    model = backbone.swinv2
    assert model.window_sizes == ((4, 4),) * 4
    assert model.pretrained_window_sizes == ((8, 8), (8, 8), (8, 8), (4, 4))
    assert model.small_map_rule == "square"
    assert model.layers[3].blocks[0].drop_path.rate == pytest.approx(0.4)
    assert not any(p.requires_grad for p in model.layers[0].parameters())
    assert all(block.activation_checkpointing for stage in model.layers for block in stage.blocks)
    assert all(block.kernel == "reference" for stage in model.layers for block in stage.blocks)
    assert list(backbone.output_shape()) == ["res3", "res5"]
    assert not backbone.mask_padding


@pytest.mark.parametrize("value", ["6", "(6, 6, 6, 3)", "((4, 6), (4, 6), (4, 6), (2, 3))"])
def test_window_size_changes_form_by_one_override(value):
    cfg = small_config("build_swinv2_backbone", "MODEL.SWINV2.WINDOW_SIZE", value)
    windows = build_backbone(cfg, ShapeSpec(channels=3)).swinv2.window_sizes
    assert windows[0] in ((6, 6), (4, 6))


def test_variant_keeps_its_pretrained_windows_at_another_window():
    cfg = load_config(
        "",
        [
            "MODEL.DEVICE",
            "cpu",
            "MODEL.SWINV2.VARIANT",
            "swinv2_tiny_window16_256",
            "MODEL.SWINV2.WINDOW_SIZE",
            "32",
            "MODEL.BACKBONE.NAME",
            "build_swinv2_backbone",
        ],
    )
    model = build_backbone(cfg, ShapeSpec(channels=3)).swinv2
    assert model.window_sizes == ((32, 32),) * 4
    assert model.pretrained_window_sizes == ((16, 16), (16, 16), (16, 16), (8, 8))


def test_detectron2s_fpn_takes_the_features_in_a_lazy_config():
    config = L(FPN)(
        bottom_up=L(D2SwinV2)(
            embed_dim=16,
            depths=(1, 1, 1, 1),
            num_heads=(1, 2, 4, 8),
            window_size=4,
            out_features=("res3", "res4", "res5"),
        ),
        in_features="${.bottom_up.out_features}",
        out_channels=8,
        top_block=L(LastLevelMaxPool)(),
    )
    assert list(instantiate(config)(torch.randn(1, 3, 64, 64))) == ["p3", "p4", "p5", "p6"]


@pytest.mark.parametrize("name", ["D2SwinV2", "SwinV2"])
def test_lazy_configs_may_name_the_class_by_either_name(name):
    assert getattr(swinv2_backbone.d2, name) is D2SwinV2
    target = f"swinv2_backbone.d2.{name}"
    found = instantiate(
        {"_target_": target, "variant": "swinv2_tiny_window8_256", "out_features": ["res2"]}
    )
    assert type(found) is D2SwinV2 and list(found.output_shape()) == ["res2"]


@pytest.mark.parametrize("size", [{"variant": "swinv2_base_window8_256"}, {"embed_dim": 128}])
def test_the_shapes_of_features_are_known_without_a_model(size):
    expected = D2SwinV2("swinv2_base_window8_256", out_features=("res2", "res4")).output_shape()
    assert feature_shapes(**size, out_features=("res2", "res4")) == expected
    with pytest.raises(ValueError, match="needs a variant or an embed_dim"):
        feature_shapes()


def test_lazy_and_yacs_backbones_have_the_same_state_dict():
    lazy = instantiate(
        L(D2SwinV2)(embed_dim=16, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)
    )
    yacs = build("build_swinv2_backbone")
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()} for model in (lazy, yacs)
    ]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["MODEL.FPN.IN_FEATURES", "['res1', 'res2']"], ["res1", "MODEL.FPN.IN_FEATURES"]),
        (["MODEL.SWINV2.OUT_FEATURES", "['res4', 'res5']"], ["res2", "MODEL.SWINV2.OUT_FEATURES"]),
        (["MODEL.SWINV2.VARIANT", "swinv2_tiny_window8_256"], ["EMBED_DIM".lower(), "either"]),
        (["MODEL.SWINV2.NUM_HEADS", "None"], ["num_heads"]),
    ],
)
def test_contradictions_in_the_config_are_named(opts, words):
    with pytest.raises(ValueError) as error:
        build("build_swinv2_fpn_backbone", *opts)
    assert all(word in str(error.value) for word in words)


def test_true_sizes_are_recovered_from_zero_padding():
    images = torch.zeros(3, 3, 20, 30)
    images[0] = torch.randn(3, 20, 30)
    images[1, :, :7, :30] = torch.randn(3, 7, 30)
    images[2, 1, :20, :1] = 1
    assert true_sizes(images) == [(20, 30), (7, 30), (20, 1)]
    assert true_sizes(torch.zeros(1, 3, 5, 6)) == [(5, 6)]


def test_features_depend_neither_on_padding_nor_on_the_neighbor_in_the_batch():
    backbone = randomize(build("build_swinv2_backbone"), seed=0).eval()
    image = torch.randn(1, 3, 53, 70)
    batch = torch.zeros(2, 3, 96, 128)
    batch[:1, :, :53, :70] = image
    batch[1] = torch.randn(3, 96, 128)
    with torch.inference_mode():
        alone, together = backbone(image), backbone(batch)
    for name, feature in alone.items():
        h, w = feature.shape[-2:]
        torch.testing.assert_close(together[name][:1, :, :h, :w], feature, atol=1e-5, rtol=0)
        assert not together[name][0, :, h:].any() and not together[name][0, :, :, w:].any()


def test_treating_padding_as_image_is_an_option():
    masked = randomize(build("build_swinv2_backbone"), seed=0).eval()
    plain = build("build_swinv2_backbone", "MODEL.SWINV2.MASK_PADDING", "False").eval()
    plain.load_state_dict(masked.state_dict())
    batch = torch.zeros(1, 3, 64, 64)
    batch[:, :, :40, :40] = torch.randn(3, 40, 40)
    with torch.inference_mode():
        assert plain(batch)["res2"][0, :, 12:].any()
        assert not masked(batch)["res2"][0, :, 12:].any()


def test_the_main_config_is_tiny_at_window_16_on_window_8_weights():
    cfg = load_config(str(CONFIGS / "mask_rcnn_swinv2.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).backbone.bottom_up.swinv2
    assert model.window_sizes == ((16, 16),) * 4
    assert model.pretrained_window_sizes == ((8, 8),) * 4
    # RGB, in units of 0 to 255
    assert cfg.INPUT.FORMAT == "RGB" and cfg.MODEL.PIXEL_MEAN[0] > cfg.MODEL.PIXEL_MEAN[2] > 100


def test_backbone_returns_the_features_of_the_fpn_so_that_no_weight_is_unused():
    backbone = build(
        "build_retinanet_swinv2_fpn_backbone", "MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"
    )
    assert list(backbone.bottom_up.output_shape()) == ["res3", "res4", "res5"]
    sum(feature.sum() for feature in backbone(torch.randn(1, 3, 64, 64)).values()).backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_a_segmentor_has_the_features_of_its_head_so_that_no_weight_is_unused():
    semantic = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "MODEL.SEM_SEG_HEAD.IN_FEATURES"]
    backbone = build("build_swinv2_backbone", *semantic, "['res3', 'res5']")
    assert list(backbone.output_shape()) == ["res3", "res5"]
    backbone = build("build_swinv2_backbone", *semantic, "['p2', 'p3']")  # of a head with a neck
    assert list(backbone.output_shape()) == ["res2", "res3", "res4", "res5"]


def test_a_mean_that_pixels_can_equal_is_refused_where_zeros_mean_padding():
    whole = ["MODEL.PIXEL_MEAN", "[0.0, 0.0, 0.0]"]
    unknown = ["MODEL.META_ARCHITECTURE", "SomeoneElses"]
    assert build("build_swinv2_backbone", *unknown, "MODEL.PIXEL_MEAN", "[0.5, 0.0, 0.0]")
    with pytest.raises(ValueError, match=r"PIXEL_MEAN \[0.0, 0.0, 0.0\]"):
        build("build_swinv2_backbone", *unknown, *whole)
    backbone = build("build_swinv2_backbone", *whole)
    with pytest.raises(ValueError, match="MODEL.SWINV2.MASK_PADDING False"):
        backbone(torch.zeros(1, 3, 64, 64))
    build("build_swinv2_backbone", *whole, "MODEL.SWINV2.MASK_PADDING", "False")
