"""The options of the export command: size, batch, operator set, precision, other runtimes."""

from __future__ import annotations

import pytest
from scripts import tool

from swinv2_backbone import SwinV2, SwinV2Classifier, save_checkpoint
from swinv2_backbone.export.formats import FORMATS

SMALL = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "window_size": 3}


@pytest.fixture(scope="module")
def script():
    return tool("export_model")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--format", "coreml"], "coreml holds one image size: give --size HxW"),
        (["--format", "onnx", "--batch", "2"], "--batch 2 goes with --size"),
        (["--format", "onnx", "--opset", "11"], "--opset 11: there are 18 to 23"),
        (["--format", "aoti", "--opset", "20"], "--opset goes with --format onnx or openvino"),
        (["--format", "aoti", "--half"], "--half goes with --format onnx, openvino, and"),
        (["--format", "onnx", "--check-with", "opencv"], "fixed shape alone: give --size"),
        (["--format", "onnx", "--check-with", "tensorrt"], "there are onnxruntime"),
    ],
)
def test_options_that_do_not_fit_are_named_before_any_work(script, options, words, tmp_path):
    suffix = FORMATS[options[1]].suffix
    arguments = ["--model", "swinv2_tiny_window8_256", "--what", "classifier", *options]
    with pytest.raises(SystemExit, match=f"^ValueError: .*{words}"):
        script.main([*arguments, "--output", str(tmp_path / f"a{suffix}")])


def test_a_wrong_size_is_named(script, capsys):
    with pytest.raises(SystemExit):
        script.main(["--model", "x", "--size", "512"])
    assert "'512': give HxW, such as 512x512, or dynamic" in capsys.readouterr().err


def test_a_file_of_one_size_is_checked_in_other_runtimes(script, tmp_path, capsys, monkeypatch):
    small = SwinV2Classifier(SwinV2(**SMALL, out_features=("res2",)), 7).eval()
    weights, path = tmp_path / "weights.safetensors", tmp_path / "model.onnx"
    save_checkpoint(small, weights)
    monkeypatch.setattr("swinv2_backbone.build.build_classifier", lambda *_, **__: small)
    arguments = ["--model", "swinv2_tiny_window8_256", "--weights", str(weights)]
    arguments += ["--what", "classifier", "--format", "onnx", "--output", str(path)]
    arguments += ["--size", "30x41", "--batch", "2", "--opset", "20", "--check-with", "opencv"]
    script.main(arguments)
    text = capsys.readouterr().out
    assert "opencv      2 of 30x41: logits (2, 7) differs by" in text and "one thread" in text
    _, notes = FORMATS["onnx"].read(path)
    assert notes["size"] == "30x41" and notes["batch"] == "2"
