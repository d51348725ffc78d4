"""Exported files and compiled graphs match the model, also at sizes that were not traced."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
import torch
import torch._dynamo.testing
from models import (
    FOUR_STAGES,
    TWO_STAGES,
    backbone,
    gradients,
    largest_difference,
    oracle_features,
    pictures,
    total,
)
from scripts import tool
from small_configs import yaml_config
from torch import Tensor, nn

from swinv2_backbone import SwinV2, SwinV2Classifier, save_checkpoint
from swinv2_backbone.export import formats
from swinv2_backbone.export.check import check_shapes, compare, random_pixels
from swinv2_backbone.export.exportable import exportable_model
from swinv2_backbone.export.file import check_target, export_file
from swinv2_backbone.export.formats import FORMATS, Options
from swinv2_backbone.export.geometry import graph_layout
from swinv2_backbone.export.graph import FromPixels, GraphBackbone
from swinv2_backbone.export.runtimes import check_in
from swinv2_backbone.windows import Partition, WindowLayout, window_layout

# The second is the one that is traced.
SIZES = [(1, 1, 1), (2, 130, 97), (1, 33, 70), (2, 3, 5), (3, 64, 64), (1, 7, 150), (1, 150, 31)]
WINDOWS = (4, (3, 5), 7, (1, 2))
ONE_STAGE = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "window_size": 3}
ONE_STAGE |= {"out_features": ("res2",)}
ONE_BLOCK = ONE_STAGE | {"depths": (1,)}
CPU = torch.device("cpu")


def mild(module: nn.Module) -> nn.Module:
    """Set random weights with which float32 is accurate to 1e-6 (initial norms are 0)."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.endswith(("norm1.weight", "norm2.weight")):
                parameter.uniform_(0.5, 1)
            elif name.endswith(("bias", "cpb_mlp.2.weight")):
                parameter.normal_(std=0.2)
    return module.eval()


def pixels(*shapes: tuple[int, int, int]) -> list[Tensor]:
    return [random_pixels((batch, 3, *size)) for batch, *size in shapes]


def exported(model: nn.Module, folder: Path, name: str, shapes=SIZES):
    """Export a model; return a function that runs the file, its notes, and the differences."""
    found, seen = exportable_model(model), []
    path = folder / f"model{FORMATS[name].suffix}"
    notes = {"what": "a test", "windows": json.dumps([4, 4])}
    images = pixels(*shapes)
    export_file(
        found.model, found.expected, path, FORMATS[name], images, notes=notes, show=seen.append
    )
    return *FORMATS[name].read(path), seen


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(
    "window, square",
    [((4, 4), False), ((4, 4), True), ((3, 5), False), ((2, 7), False), ((1, 1), True)],
)
def test_the_layout_of_a_graph_equals_the_models(window, square, shifted):
    """Every token attends to the same tokens at the same offsets, in any order of windows."""

    for height, width in ((1, 1), (2, 9), (8, 3), (4, 5), (9, 11)):
        partition = Partition(((height, width),) * 2, window, shifted, square)
        expected = window_layout(partition, CPU)
        if expected.regions is None:  # no token is masked
            regions = torch.zeros(len(expected.permutation.token_of_slot)).view(
                -1, prod(expected.window)
            )
            expected = replace(expected, regions=regions)
        actual = graph_layout(2, (height, width), window, shifted, CPU, square)
        assert pairs(actual) == pairs(expected)
        tokens = torch.arange(2 * height * width)[:, None].float()
        assert torch.equal(actual.to_tokens(actual.to_windows(tokens)), tokens)


def pairs(layout: WindowLayout) -> set:
    """Return all (query, key, offset) for which attention is allowed."""
    tokens = layout.permutation.token_of_slot.view(len(layout.regions), -1)
    allowed, width = ~layout.attn_mask(), layout.window[1]
    found = set()
    for window, query, key in allowed.nonzero().tolist():
        if layout.regions[window, query] >= 0:  # otherwise the slot is empty
            offset = query // width - key // width, query % width - key % width
            found.add((int(tokens[window, query]), int(tokens[window, key]), offset))
    return found


@torch.no_grad()
def test_the_graph_returns_the_features_of_the_oracle_at_every_size():
    options = {"window_size": WINDOWS, "pretrained_window_sizes": 6, "extra_norm_every": 2}
    model = backbone(FOUR_STAGES, **options).eval().double()
    graph = GraphBackbone(model)
    for batch, *size in SIZES:
        images = pictures(batch, 3, *size).double()
        expected = oracle_features(
            model, images, window_sizes=[(4, 4), (3, 5), (7, 7), (1, 2)],
            pretrained_window_sizes=[(6, 6)] * 4, extra_norm_every=2,
        )  # fmt: skip
        assert largest_difference(graph(images), expected) < 1e-9


@torch.no_grad()
def test_the_graph_has_square_windows_on_small_maps_where_asked_for():
    model = backbone(FOUR_STAGES, small_map_rule="square").eval().double()
    graph = GraphBackbone(model)
    for batch, *size in SIZES:
        images = pictures(batch, 3, *size).double()
        expected = oracle_features(model, images, window_sizes=[4] * 4, square_small_maps=True)
        assert largest_difference(graph(images), expected) < 1e-9


@pytest.mark.slow  # a file of torch-export is compared at the same sizes by default
@torch.no_grad()
def test_a_graph_of_torch_export_is_for_every_size():
    model = mild(SwinV2(**TWO_STAGES | {"depths": (2, 1)}))
    graph = formats.trace(GraphBackbone(model).eval(), pictures(2, 3, 77, 107)).module()
    for batch, *size in SIZES:
        images = pictures(batch, 3, *size)
        assert largest_difference(graph(images), model(images)) < 1e-5


@pytest.mark.parametrize(
    "name",
    ["torch-export", *(pytest.param(name, marks=pytest.mark.slow) for name in ("onnx", "aoti"))],
)
def test_the_outputs_of_a_file_equal_the_models(name, tmp_path):
    model = mild(SwinV2(**ONE_STAGE))
    run, notes, seen = exported(model, tmp_path, name)
    assert len(seen) == len(SIZES) and all(one.absolute < 1e-4 for one in seen)
    assert notes["what"] == "a test" and json.loads(notes["windows"]) == [4, 4]
    (shape,) = [tuple(value.shape) for value in run(random_pixels((2, 3, 9, 14))).values()]
    assert shape == (2, 8, 3, 4)
    assert [file.name for file in tmp_path.iterdir()] == [f"model{FORMATS[name].suffix}"]


@pytest.mark.slow
def test_an_onnx_file_names_its_axes_and_holds_no_mlp_of_the_position_bias(tmp_path):
    import onnx

    classifier = mild(SwinV2Classifier(SwinV2(**ONE_BLOCK), 7))
    run, _, _ = exported(classifier, tmp_path, "onnx", SIZES[2:5])
    assert run(random_pixels((4, 3, 20, 20)))["logits"].shape == (4, 7)
    written = onnx.load(tmp_path / "model.onnx")
    assert written.opset_import[0].version == formats.OPSET
    (images,) = written.graph.input
    axes = [axis.dim_param or axis.dim_value for axis in images.type.tensor_type.shape.dim]
    assert axes == ["batch", 3, "height", "width"]
    sizes = [tuple(weight.dims) for weight in written.graph.initializer]
    # The table of (heads, offsets), or the bias (heads, queries, keys).
    assert {(2, 25), (2, 81), (2, 9, 9)} & set(sizes)
    assert not any(512 in size for size in sizes)
    assert {node.op_type for node in written.graph.node}.isdisjoint({"Loop", "If", "Sigmoid"})


def test_the_bias_is_for_the_windows_at_the_time_of_export():
    model = mild(SwinV2(**ONE_STAGE, pretrained_window_sizes=3))
    model.set_window_size((5,))
    images = pictures(1, 3, 50, 70)
    with torch.no_grad():
        assert largest_difference(GraphBackbone(model)(images), model(images)) < 1e-5


def test_a_file_that_differs_is_not_kept(tmp_path):
    found = exportable_model(mild(SwinV2(**ONE_BLOCK)))
    path = tmp_path / "model.pt2"
    path.write_bytes(b"before")

    def wrong(images: Tensor) -> dict[str, Tensor]:
        return {name: value + (len(images) == 3) for name, value in found.expected(images).items()}

    with pytest.raises(ValueError, match=r"model.pt2 was not written.*3 of 30x20: res2"):
        images = pixels((1, 9, 9), (2, 21, 20), (3, 30, 20))
        export_file(found.model, wrong, path, FORMATS["torch-export"], images, notes={})
    assert path.read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "spoil",
    [lambda x: x + 2e-4, lambda x: x[..., :-1], lambda x: x * torch.nan, lambda x: x.double()],
)
def test_a_comparison_detects_other_values_shapes_and_dtypes(spoil):
    def model(images: Tensor) -> dict[str, Tensor]:
        return {"out": images / 1000}

    same, other = (
        compare(run, model, pixels((1, 4, 4)))[0]
        for run in (model, lambda images: {"out": spoil(images / 1000)})
    )
    assert same.is_small and not other.is_small
    with pytest.raises(ValueError, match="outputs"):
        compare(lambda images: {}, model, pixels((1, 4, 4)))


def test_sizes_to_check_are_below_a_window_no_multiple_and_several_windows():
    small, odd, large = check_shapes([(8, 16), (8, 16), (8, 16), (8, 4)])
    assert small[2] < 4 * 8 and small[3] < 4 * 16
    assert odd[2] % 32 and odd[3] % 32 and len({small[0], odd[0], large[0]}) == 3
    assert large[2] > 32 * 8 and large[3] > 32 * 4 and large[3] > 4 * 16
    small, odd, _ = check_shapes([(1, 2)] * 4)
    assert min(small) >= 1 and min(odd[2:]) > 64  # maps of more than one token everywhere


def test_impossible_targets_are_refused_before_any_work(tmp_path, monkeypatch):
    there = tmp_path / "a.onnx"
    there.touch()
    for path, name, error, words in (
        (there, "onnx", FileExistsError, "--overwrite"),
        (tmp_path / "a.pt", "onnx", ValueError, r"ends in \.onnx"),
        (tmp_path / "no" / "a.pt2", "aoti", FileNotFoundError, "no folder"),
        (there, "tflite", ValueError, "unknown format 'tflite'; there are: onnx"),
        (there, "coreml", ValueError, "--format coreml holds one image size: give --size HxW"),
    ):
        with pytest.raises(error, match=words):
            check_target(path, name, overwrite=False)
    check_target(there, "onnx", overwrite=True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs a C.. compiler"):
        check_target(tmp_path / "a.pt2", "aoti", overwrite=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs onnx, onnxscript, onnxruntime: pip install"):
        check_target(tmp_path / "a.onnx", "onnx", overwrite=False)


def test_windows_of_one_token_are_refused():
    with pytest.raises(ValueError, match="windows of one token"):
        GraphBackbone(SwinV2(**ONE_STAGE | {"window_size": 1}))


def test_pixels_are_normalized_in_the_file():
    model = FromPixels(nn.Identity(), (1.0, 2.0, 3.0), (2.0, 4.0, 8.0))
    found = model(torch.full((1, 3, 1, 1), 5.0)).flatten()
    assert found.tolist() == [2.0, 0.75, 0.25]


@pytest.fixture(scope="module")
def script():
    return tool("export_model")


def test_the_tool_exports_a_published_size_and_describes_the_input(
    script, tmp_path, capsys, monkeypatch
):
    small = mild(SwinV2Classifier(SwinV2(**ONE_BLOCK), 7))
    weights = tmp_path / "weights.safetensors"
    save_checkpoint(small, weights)

    def build(name: str, *, weights: str, **options) -> SwinV2Classifier:
        assert name == "swinv2_tiny_window8_256" and weights.endswith("weights.safetensors")
        assert options["small_map_rule"] == "square"
        return small

    monkeypatch.setattr("swinv2_backbone.build.build_classifier", build)
    path = tmp_path / "model.pt2"
    arguments = ["--model", "swinv2_tiny_window8_256", "--weights", str(weights)]
    arguments += ["--format", "torch-export", "--output", str(path), "--square-small-maps"]
    script.main([*arguments, "--what", "classifier"])
    text = capsys.readouterr().out
    assert text.count("checked ") == 3 and "logits (3, 7)" in text
    _, notes = FORMATS["torch-export"].read(path)
    assert notes["sha256"] == script.digest(weights) and len(notes["sha256"]) == 64
    assert "RGB, 0 to 255" in notes["input"] and json.loads(notes["mean"])[0] == 123.675
    assert json.loads(notes["windows"]) == json.loads(notes["pretrained windows"]) == [[3, 3]]
    with pytest.raises(SystemExit, match="^FileExistsError: .*--overwrite"):
        script.main([*arguments, "--what", "classifier"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--model", "swinv2_tiny_window8_256", "--what", "semantic"], "there are backbone, class"),
        (["--config-file", "a.yaml", "--what", "classifier"], "with --config-file there are"),
        (["--config-file", "a.yaml", "--what", "backbone"], "no file 'a.yaml'"),
        (
            ["--model", "swinv2_tiny_window8_256", "--what", "backbone", "A", "1"],
            "A 1: config keys",
        ),
        (["--model", "x", "--what", "backbone", "--picture", "p.png"], "no file 'p.png'"),
        (
            ["--config-file", "a.yaml", "--what", "backbone", "--square-small-maps"],
            "set MODEL.SWINV2.SMALL_MAP_RULE square",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_named(script, arguments, words, tmp_path):
    what = ["--format", "torch-export", "--output", str(tmp_path / "a.pt2")]
    with pytest.raises(SystemExit, match=f"^(ValueError|FileNotFoundError): .*{words}"):
        script.main([*what, *arguments])


def small_model(stem: str, **changes) -> nn.Module:
    """Build the small model of a config with weights by `mild`."""
    from detectron2.modeling import build_model

    cfg = yaml_config(stem, small=True)
    for key, value in changes.items():
        cfg.merge_from_list([key, value])
    return mild(build_model(cfg))


def checked(model: nn.Module, what: str, name: str, folder: Path, shapes) -> list:
    from swinv2_backbone.d2.export.model import exportable_part

    found, seen = exportable_part(model, what, "BGR"), []
    path = folder / f"model{FORMATS[name].suffix}"
    export_file(
        found.model, found.expected, path, found.format_of(name), pixels(*shapes),
        notes={}, show=seen.append,
    )  # fmt: skip
    return seen


TWO_LEVELS = {
    "MODEL.SWINV2.OUT_FEATURES": "('res2', 'res3')",
    "MODEL.FPN.IN_FEATURES": "('res2', 'res3')",
    "MODEL.RPN.IN_FEATURES": "('p2', 'p3', 'p4')",
    "MODEL.ROI_HEADS.IN_FEATURES": "('p2', 'p3')",
    "MODEL.ANCHOR_GENERATOR.SIZES": "[[32], [64], [128]]",
}
FPN_SIZES = [(1, 1, 1), (2, 77, 103), (3, 64, 64), (1, 130, 20)]


@pytest.mark.parametrize("mask_padding", ["True", "False"])
@pytest.mark.slow
def test_an_fpn_pads_by_itself_as_detectron2_does(mask_padding, tmp_path):
    model = small_model(
        "mask_rcnn_swinv2", **TWO_LEVELS, **{"MODEL.SWINV2.MASK_PADDING": mask_padding}
    )
    model.backbone.top_block.in_feature = "p3"  # Detectron2 always writes p5
    seen = checked(model, "backbone+fpn", "torch-export", tmp_path, FPN_SIZES)
    assert [one.output for one in seen[:3]] == ["p2", "p3", "p4"]
    assert all(one.absolute < 1e-4 for one in seen) and len(seen) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "what", "name"),
    [
        ("mask_rcnn_swinv2", "backbone", "onnx"),
        ("mask_rcnn_swinv2", "backbone+fpn", "onnx"),
        ("retinanet_swinv2_tiny", "backbone+fpn", "onnx"),
        ("upernet_swinv2_tiny_ade20k", "semantic", "onnx"),
        ("upernet_swinv2_tiny_ade20k", "semantic", "torch-export"),
        ("semantic_fpn_swinv2_tiny_ade20k", "semantic", "onnx"),
    ],
)
def test_parts_of_detectron2_models_are_exported_for_every_size(stem, what, name, tmp_path):
    seen = checked(small_model(stem), what, name, tmp_path, FPN_SIZES)
    assert seen and all(one.absolute < 1e-4 for one in seen)


@pytest.mark.parametrize("size", [(20, 90), (64, 64)], ids=str)
@pytest.mark.parametrize(
    ("stem", "what"),
    [
        ("mask_rcnn_swinv2", "backbone+fpn"),
        ("upernet_swinv2_tiny_ade20k", "semantic"),
        ("semantic_fpn_swinv2_tiny_ade20k", "semantic"),
    ],
)
def test_parts_for_one_size_run_in_other_runtimes(stem, what, size, tmp_path):
    """The last maps have one row, which OpenCV does not resize as PyTorch does."""
    from swinv2_backbone.d2.export.model import exportable_part

    found, images = exportable_part(small_model(stem), what, "BGR"), pixels((1, *size))
    path = tmp_path / "model.onnx"
    FORMATS["onnx"].write(found.model.eval(), *images, path, {}, Options(fixed=True))
    for runtime in ("onnxruntime", "openvino", "opencv"):
        differences = check_in(runtime, path, found.expected, images).differences
        assert all(one.relative < 1e-5 for one in differences), runtime


@pytest.mark.parametrize(
    "stem",
    ["mask_rcnn_swinv2", pytest.param("cascade_mask_rcnn_swinv2_tiny", marks=pytest.mark.slow)],
)
def test_a_whole_detector_is_exported_to_onnx(stem, tmp_path):
    """Some boxes of some images pass the threshold."""
    model = small_model(stem, **{"MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0135"})
    shapes = [(1, 1, 1), (1, 45, 77), (1, 64, 64), (1, 128, 160)]
    seen = checked(model, "detector", "onnx", tmp_path, shapes)
    assert [one.output for one in seen[:4]] == ["boxes", "scores", "classes", "masks"]
    assert all(one.absolute < 1e-4 for one in seen)
    counts = {one.shape[0] for one in seen}
    assert len(counts) > 1 and max(counts) > 3


def test_a_detector_without_detections_returns_none_in_openvino(tmp_path):
    """OpenVINO's suppression returns one box of none."""
    model = small_model("mask_rcnn_swinv2", **{"MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.9"})
    seen = checked(model, "detector", "openvino", tmp_path, [(1, 45, 77)])
    assert [one.shape[0] for one in seen] == [0] * 4
    assert all(one.absolute == 0 for one in seen)


def test_what_cannot_be_exported_is_refused_with_a_reason(tmp_path):
    from swinv2_backbone.d2.export.model import exportable_part

    detector = small_model("mask_rcnn_swinv2")
    whole = exportable_part(detector, "detector", "RGB")
    with pytest.raises(ValueError, match="--format aoti: torch.export cannot trace a detector"):
        whole.format_of("aoti")
    with pytest.raises(ValueError, match="is for a SemanticSegmentor, not a GeneralizedRCNN"):
        exportable_part(detector, "semantic", "RGB")
    for stem, what, words in (
        ("retinanet_swinv2_tiny", "detector", "a RetinaNet combines its results in Python"),
        ("upernet_swinv2_tiny_ade20k", "backbone+fpn", "no FPN on the backbone"),
    ):
        with pytest.raises(ValueError, match=words):
            exportable_part(small_model(stem), what, "RGB")
    detector.backbone = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="is a Conv2d, not a SwinV2"):
        exportable_part(detector, "backbone", "RGB")


TWENTY = [
    *((96, 128), (70, 101), (75, 133), (66, 140), (96, 90), (131, 71), (128, 100)),
    *((77, 153), (160, 160), (200, 90), (81, 199), (96, 96), (192, 128), (97, 98)),
    *((70, 150), (111, 95), (88, 120), (120, 90), (160, 75), (117, 223)),
]


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("with_fpn", [False, True])
def test_torch_compile_makes_one_graph_for_twenty_sizes(with_fpn, dynamic):
    """The FPN's images are padded; the extent of each is known only from its pixels."""
    model = small_model("mask_rcnn_swinv2").backbone if with_fpn else backbone(FOUR_STAGES).eval()
    graphs = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    compiled = torch.compile(model, backend=graphs, fullgraph=True, dynamic=dynamic)
    assert len(set(TWENTY)) == 20
    for height, width in TWENTY:
        images = pictures(2, 3, height, width)
        if with_fpn:
            images[1, :, -7:] = images[1, :, :, -width // 3 :] = 0
            images = nn.functional.pad(images, (0, -width % 32, 0, -height % 32))
        with torch.no_grad():
            assert largest_difference(compiled(images), model(images)) < 1e-5
    assert not torch._dynamo.utils.counters["graph_break"]
    assert graphs.frame_count <= 3  # the first and at most two recompilations


@pytest.mark.slow
def test_padding_is_read_from_images_inside_a_compiled_graph():
    """Forward and backward also work for extents that differ from those in the traced images."""
    from swinv2_backbone.d2 import D2SwinV2

    size = {"embed_dim": 8, "depths": (2,), "num_heads": (1,), "window_size": 3}
    model = mild(D2SwinV2(**size, out_features=("res2",)))
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True, dynamic=True)
    for rows, columns in ((7, 40), (30, 1)):
        images = pictures(2, 3, 96, 128)
        images[0, :, -rows:] = images[1, :, :, -columns:] = 0
        found = []
        for run in (compiled, model):
            model.zero_grad()
            features = run(images)
            total(features).backward()
            found.append((features, gradients(model)))
        assert largest_difference(found[0][0], found[1][0]) < 1e-5
        assert largest_difference(found[0][1], found[1][1]) < 1e-4
