"""Exported files in other runtimes, each in a process of its own."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor, nn

from swinv2_backbone.export.check import random_pixels
from swinv2_backbone.export.formats import FORMATS, Options
from swinv2_backbone.export.runtimes import RUNTIMES, check_in, check_runtime, child, run


class Small(nn.Module):
    """Pixels -> a convolution's map, and its mean; the outputs are not in alphabetical order."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.conv(images / 255)
        return {"map": maps, "average": maps.mean((2, 3))}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A model and its ONNX file for two images of 9x8."""
    model, path = Small().eval(), tmp_path_factory.mktemp("small") / "small.onnx"
    FORMATS["onnx"].write(model, random_pixels((2, 3, 9, 8)), path, {}, Options(fixed=True))
    return model, path


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "opencv"])
def test_a_runtime_returns_the_outputs_of_the_model(name, small):
    model, path = small
    check_runtime(name, "onnx", fixed=True, batch=2)
    found = check_in(name, path, model, [random_pixels((2, 3, 9, 8))])
    assert [one.output for one in found.differences] == ["map", "average"]
    assert all(one.absolute < 1e-6 for one in found.differences) and found.ratio > 0


@pytest.mark.parametrize("format", ["onnx", "openvino"])
@pytest.mark.parametrize("fixed", [True, False])
def test_a_file_of_half_precision_is_near_the_model(format, fixed, tmp_path):
    model, path = Small().eval(), tmp_path / f"small{FORMATS[format].suffix}"
    images = random_pixels((2, 3, 9, 8))
    FORMATS[format].write(model, images, path, {}, Options(fixed=fixed, half=True))
    (found, _) = check_in(format.replace("onnx", "onnxruntime"), path, model, [images]).differences
    assert 1e-6 < found.absolute < 1e-3


def test_a_difference_and_other_outputs_are_seen(small):
    model, path = small

    def moved(images: Tensor) -> dict[str, Tensor]:
        return {name: value + 1e-3 for name, value in model(images).items()}

    images = [random_pixels((2, 3, 9, 8))]
    assert not any(one.is_small for one in check_in("onnxruntime", path, moved, images).differences)
    with pytest.raises(ValueError, match="the file has the outputs"):
        check_in("onnxruntime", path, lambda x: {"logits": x}, images)
    with pytest.raises(ValueError, match="onnxruntime failed: .*Got invalid dimensions"):
        check_in("onnxruntime", path, model, [random_pixels((1, 3, 9, 8))])


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("import os; os.abort()", "tract ended its process: SIGABRT"),
        ("raise ValueError('no such layer')", "tract failed: ValueError: no such layer"),
        ("raise SystemExit(3)", "tract failed: it wrote nothing"),
    ],
)
def test_the_end_of_a_process_is_named(program, words, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHILD", tmp_path / "child.py")
    run.CHILD.write_text(program)
    with pytest.raises(ValueError, match=words):
        run.run_in("tract", tmp_path / "a.onnx", [torch.zeros(1, 3, 2, 2)], ["out"])


def test_outputs_without_names_are_taken_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "CHILD", tmp_path / "child.py")
    run.CHILD.write_text(
        "import sys, numpy\n"
        "numpy.savez(sys.argv[4], seconds=[1.0], **{'0 node_b': [1.0], '0 node_a': [2.0]})"
    )
    found = run.run_in("tract", tmp_path / "a.onnx", [torch.zeros(1, 3, 2, 2)], ["x", "y"])
    assert {name: value.item() for name, value in found.outputs[0].items()} == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("name", "format", "options", "words"),
    [
        ("tensorrt", "onnx", {"fixed": True}, "there are onnxruntime, openvino, opencv"),
        ("opencv", "openvino", {"fixed": True}, "does not read --format openvino, only onnx"),
        ("opencv", "onnx", {"fixed": False}, "files of a fixed shape alone: give --size"),
        ("ncnn", "onnx", {"fixed": True, "batch": 2}, "no batch axis: give --batch 1"),
        ("tract", "onnx", {"fixed": True, "detector": True}, "cannot run a detector"),
    ],
)
def test_what_a_runtime_cannot_run_is_refused(name, format, options, words):
    with pytest.raises(ValueError, match=f"--check-with {name}: .*{words}"):
        check_runtime(name, format, **options)


def test_an_absent_runtime_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="it needs ncnn, pnnx: pip install ncnn pnnx"):
        check_runtime("ncnn", "onnx", fixed=True, batch=1)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(ValueError, match="CoreML runs on macOS alone"):
        check_runtime("coreml", "coreml", fixed=True)


def test_every_runtime_has_a_runner_and_a_format():
    assert set(RUNTIMES) == set(child.RUNTIMES)
    assert {format for one in RUNTIMES.values() for format in one.formats} <= set(FORMATS)
