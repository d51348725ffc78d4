"""int8 files: linear layers alone, sensitive ones in float, outputs near the float file's."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from oracle import randomize
from PIL import Image
from scripts import tool
from torch import Tensor, nn

from swinv2_backbone import SwinV2, SwinV2Classifier, save_checkpoint
from swinv2_backbone.cli import calibration
from swinv2_backbone.export.check import random_pixels
from swinv2_backbone.export.exportable import exportable_model
from swinv2_backbone.export.formats import FORMATS
from swinv2_backbone.export.int8 import STORE, Pictures, export_int8, quantize
from swinv2_backbone.export.int8 import file as int8_file
from swinv2_backbone.export.int8.agreement import detection_error
from swinv2_backbone.export.int8.linear import Linear, linear_layers, quantize_layers
from swinv2_backbone.export.int8.pictures import LEAST, MOST
from swinv2_backbone.export.int8.quantize import LIMIT
from swinv2_backbone.export.int8.ranges import Inputs, choose

ONE_BLOCK = {"embed_dim": 8, "depths": (1,), "num_heads": (2,), "window_size": 3}
ONE_BLOCK |= {"out_features": ("res2",)}
NOTES = {"what": "a test"}


def random_pictures(count: int = 10, size: int = 20) -> Pictures:
    files = [Path(str(index)) for index in range(count)]
    return Pictures(files, lambda path: random_pixels((1, 3, size + int(path.name), size)))


class Exported(NamedTuple):
    """What the tool wrote and printed for a classifier of one block."""

    model: nn.Module
    plain: Path
    int8: Path
    text: str


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Exported:
    folder = tmp_path_factory.mktemp("exported")
    small = randomize(SwinV2Classifier(SwinV2(**ONE_BLOCK), 7), seed=0).eval()
    save_checkpoint(small, folder / "weights.safetensors")
    generator = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for index in range(LEAST):
        pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{index}.png")
    arguments = ["--model", "swinv2_tiny_window8_256", "--what", "classifier", "--format", "onnx"]
    arguments += ["--weights", str(folder / "weights.safetensors")]
    arguments += ["--int8", str(folder / "pictures"), "--output", str(folder / "int8.onnx")]
    printed, plain = io.StringIO(), folder / "plain.onnx"

    def keep_plain(source: Path, *others):
        shutil.copy(source, plain)
        return export_int8(source, *others)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("swinv2_backbone.build.build_classifier", lambda *_, **options: small)
        patch.setattr("swinv2_backbone.export.int8.export_int8", keep_plain)
        tool("export_model").main(arguments)
    return Exported(small, plain, folder / "int8.onnx", printed.getvalue())


def test_the_tool_calibrates_on_a_folder_and_prints_the_comparison(exported):
    assert "6 of 6 linear layers, calibrated on 8 pictures" in exported.text
    assert "on 2 other pictures: logits" in exported.text and "the same class in" in exported.text
    assert "int8 size" in exported.text and "int8 time" in exported.text
    run, notes = FORMATS["onnx"].read(exported.int8)
    assert notes["int8"] == "6 linear layers in int8"
    assert run(random_pixels((2, 3, 33, 64)))["logits"].shape == (2, 7)
    assert not list(exported.int8.parent.glob("*.partial"))


def test_exactly_the_linear_layers_become_integers(exported, tmp_path):
    report = export_int8(exported.plain, tmp_path / "a.onnx", "onnx", random_pictures(), NOTES)
    of_model = {
        name: tuple(module.weight.shape)
        for name, module in exported.model.named_modules()
        if isinstance(module, nn.Linear) and "cpb_mlp" not in name
    }
    assert len(of_model) == 5  # qkv, proj, fc1, fc2, head
    expected = [*of_model.values(), (ONE_BLOCK["embed_dim"], 3 * 4 * 4)]  # and the patches
    stored = onnx.load(tmp_path / "a.onnx").graph
    weights = [t.dims for t in stored.initializer if t.data_type == onnx.TensorProto.INT8]
    found = [tuple(reversed(dims)) for dims in weights if len(dims) == 2]
    assert sorted(found) == sorted(expected)
    assert not report.quantized.kept and report.fast == len(report.quantized.layers) == 6
    made_of = {output: node for node in stored.node for output in node.output}
    of_integers = [
        node.op_type
        for node in stored.node
        for name in node.input
        if name in made_of and made_of[name].op_type == "DequantizeLinear"
    ]
    assert of_integers == 18 * ["Gemm"]  # input, weight and bias; no attention, norm or sum
    assert 0 < report.comparison.largest < LIMIT and report.bytes < report.float_bytes


def test_openvino_reads_the_same_layers_as_integers(exported, tmp_path):
    pytest.importorskip("openvino")
    path = tmp_path / "int8.xml"
    report = export_int8(exported.plain, path, "openvino", random_pictures(), NOTES)
    assert report.fast == 6 and 0 < report.comparison.largest < LIMIT
    run, notes = FORMATS["openvino"].read(path)
    assert notes["int8"].startswith("6 linear layers")
    assert sorted(part.name for part in tmp_path.iterdir()) == ["int8.bin", "int8.xml"]


def test_a_layer_computes_the_product_of_its_integers():
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(12, 5)).astype(np.float32)
    bias, rows = generator.normal(size=5).astype(np.float32), generator.normal(size=(7, 12))
    rows = (3 * rows + 1).astype(np.float32)
    layer = Linear("fc", "images", "out", weight, bias)
    found = choose(layer, Inputs(float(rows.min()), float(rows.max()), rows))
    assert np.abs(found.weight).max() <= 63  # two products with inputs up to 255 fit in 16 bits
    graph = network([("fc", weight, bias)])
    quantize_layers(graph, {"fc": (layer._replace(output="fc"), found)})
    onnx.checker.check_model(graph, full_check=True)
    stored = np.clip(np.round(rows / found.scale) + found.zero, 0, 255).astype(np.int64)
    product = (stored - found.zero) @ found.weight.astype(np.int64)
    unit = (found.scale * found.weight_scale).astype(np.float64)
    expected = (product + np.round(bias / unit)) * unit
    assert np.abs(run(graph, rows) - expected).max() < 1e-5
    exact = rows @ weight + bias
    assert 0 < found.error < 0.03 and np.abs(expected - exact).max() < 0.1 * np.abs(exact).max()


def test_a_bias_that_is_added_after_the_product_belongs_to_the_layer(tmp_path):
    """onnxruntime computes a MatMul followed by an Add in float."""
    weight, bias = np.eye(12, dtype=np.float32), np.arange(12, dtype=np.float32)
    graph = network([("fc", weight, bias)])
    (node,) = graph.graph.node
    node.input.pop()
    node.output[0] = "product"
    graph.graph.node.append(helper.make_node("Add", ["fc.bias", "product"], ["fc"]))
    onnx.save(graph, tmp_path / "a.onnx")
    folded = quantize.folded(tmp_path / "a.onnx")
    (layer,) = linear_layers(folded)
    assert layer.output == "fc" and np.array_equal(layer.bias, bias)
    rows = rows_of(Path("0")).numpy()
    assert np.array_equal(run(folded, rows), run(graph, rows))


def test_a_layer_whose_inputs_have_outliers_stays_in_float(tmp_path, monkeypatch):
    """A channel of the second layer's input is a million times the others, and not used by it."""
    monkeypatch.setattr(quantize, "LIMIT", 10)  # so that the outputs alone would allow it
    torch.manual_seed(0)
    first, second, third = (torch.randn(12, 12).numpy() / 3 for _ in range(3))
    first[:, 0] *= 1e6
    second[0] = 0
    zero = np.zeros(12, np.float32)
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(network([("a", first, zero), ("b", second, zero), ("c", third, zero)]), source)
    rows = Pictures([Path(str(seed)) for seed in range(10)], rows_of)
    found = quantize.quantize_file(source, target, *rows.split())
    assert list(found.kept) == ["b"] and sorted(found.layers) == ["a", "c"]
    assert found.kept["b"][1].error > 0.5


def test_layers_return_to_float_until_the_outputs_agree(tmp_path, monkeypatch):
    torch.manual_seed(0)
    weights = [(name, torch.randn(12, 12).numpy() / 3, np.zeros(12, np.float32)) for name in "abcd"]
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(network(weights), source)
    pictures = Pictures([Path(str(seed)) for seed in range(10)], rows_of).split()
    every = quantize.quantize_file(source, target, *pictures)
    assert len(every.layers) == 4
    worst = max(every.layers.values(), key=lambda pair: pair[1].error)[0].name
    (all_in_int8,) = quantize.compare_files(*runs(target, source), pictures[1]).errors.values()
    monkeypatch.setattr(quantize, "LIMIT", 0.999 * all_in_int8)
    fewer = quantize.quantize_file(source, target, *pictures)
    assert worst in fewer.kept
    assert quantize.compare_files(*runs(target, source), pictures[1]).largest <= quantize.LIMIT
    monkeypatch.setattr(quantize, "LIMIT", 0)
    with pytest.raises(ValueError, match="int8 is too inaccurate for this model: 4 of 4 linear"):
        quantize.quantize_file(source, target, *pictures)


def test_a_file_that_differs_too_much_is_not_kept(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(int8_file, "LIMIT", 0)
    with pytest.raises(ValueError, match="was not written: in onnx, its outputs differ"):
        export_int8(exported.plain, tmp_path / "int8.onnx", "onnx", random_pictures(), NOTES)
    assert not list(tmp_path.iterdir())


def test_pictures_are_spread_and_compared_on_others():
    calibration, compared = random_pictures(1000).split()
    numbers = [int(path.name) for path in (*calibration.files, *compared.files)]
    assert len(calibration) == 64 and len(compared) == 16 and len(set(numbers)) == MOST
    assert min(numbers) < 20 and max(numbers) > 980
    assert len(random_pictures(LEAST).split()[1]) == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({}, 0.0),
        ({"scores": [0.9, 0.02]}, 0.0),  # a score that does not count
        ({"classes": [1, 1]}, 1.0),
        ({"boxes": [[5.0, 0, 15, 10], [0, 0, 1, 1]]}, 1.0),  # IoU 1/3
        ({"boxes": [[0.0, 0, 10, 8], [0, 0, 1, 1]]}, 0.2),
        ({"scores": [0.6, 0.01]}, 1 - 2 * 0.6 / 1.5),
    ],
)
def test_the_error_of_detections_weighs_scores_and_overlap(change, error):
    base = {"boxes": [[0.0, 0, 10, 10], [0, 0, 1, 1]], "scores": [0.9, 0.01], "classes": [0, 1]}
    expected, found = (
        {name: torch.tensor(values) for name, values in one.items()}
        for one in (base, base | change)
    )
    assert detection_error(found, expected) == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "files", "words"),
    [
        ("aoti", ["0.png"], "--int8 goes with --format onnx or openvino"),
        ("onnx", None, "--int8: no folder"),
        ("onnx", [], "0 pictures are too few .* at least 10"),
        ("onnx", ["a.png", "b.pdf", "c.txt"], "1 pictures are too few[^$]*skipped[^$]*b.pdf"),
        ("onnx", [f"{n}.png" for n in range(10)], "0.png"),  # empty files
    ],
)
def test_what_cannot_calibrate_is_named(name, files, words, tmp_path):
    folder = tmp_path / "pictures"
    if files is not None:
        folder.mkdir()
        for file in files:
            (folder / file).touch()
    args = (
        tool("export_model")
        .parser()
        .parse_args(
            ["--model", "swinv2_tiny_window8_256", "--what", "backbone", "--format", name]
            + ["--output", "x", "--int8", str(folder)]
        )
    )
    with pytest.raises((ValueError, OSError), match=words):
        calibration.check_int8(args)
        calibration.calibration_pictures(args, exportable_model(SwinV2(**ONE_BLOCK)))


def test_the_command_knows_the_formats_and_the_least_pictures():
    assert tuple(STORE) == calibration.INT8_FORMATS and calibration.LEAST == LEAST


def network(layers: list[tuple[str, np.ndarray, np.ndarray]]) -> onnx.ModelProto:
    """Return a chain of linear layers, (rows, C_in) "images" -> the last one's output."""
    nodes, constants, last = [], [], "images"
    for name, weight, bias in layers:
        constants += [numpy_helper.from_array(weight, f"{name}.weight")]
        constants += [numpy_helper.from_array(bias, f"{name}.bias")]
        nodes += [helper.make_node("Gemm", [last, f"{name}.weight", f"{name}.bias"], [name])]
        last = name
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("images", kind, ["rows", len(layers[0][1])])],
        [helper.make_tensor_value_info(last, kind, ["rows", layers[-1][1].shape[1]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert len(linear_layers(model)) == len(layers)
    return model


def rows_of(path: Path) -> Tensor:
    return torch.randn(50, 12, generator=torch.Generator().manual_seed(int(path.name)))


def runs(*paths: Path):
    return [FORMATS["onnx"].read(path)[0] for path in paths]


def run(model: onnx.ModelProto, rows: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"images": rows})[0]
