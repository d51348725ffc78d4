"""OpenVINO files: float32 weights, notes, two files; equal scores of a detector may swap."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from scripts import ROOT
from torch import Tensor, nn

from swinv2_backbone.d2.export.detector import align_ties
from swinv2_backbone.export.check import compare, random_pixels
from swinv2_backbone.export.file import check_target, export_file
from swinv2_backbone.export.formats import FORMATS, Options
from swinv2_backbone.export.formats.openvino import convert_onnx
from swinv2_backbone.export.runtimes.run import run_in

NOTES = {"what": "a test", "input": "images, \"RGB\" <0 to 255> & 'more'"}


class Means(nn.Module):
    """Pixels -> means of each channel, times numbers that float16 would round by 3e-4."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0003, 0.7, -0.3], [0.2, 3.1415, 1e-7]]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        means = images.mean((2, 3)) / 255
        return {"first": means @ self.weight.T, "second": images + 1}


def written(folder: Path, options: Options) -> list:
    model, seen = Means().eval(), []
    images = [random_pixels((2, 3, 5, 7))] * 2
    export_file(
        model, model, folder / "model.xml", FORMATS["openvino"], images,
        notes=NOTES, options=options, show=seen.append,
    )  # fmt: skip
    return seen


def test_weights_are_float32_and_notes_are_kept(tmp_path):
    seen = written(tmp_path, Options(fixed=True))
    assert [one.output for one in seen[:2]] == ["first", "second"]
    assert all(one.absolute < 1e-6 for one in seen)  # OpenVINO's own default gives 3e-4
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    run, notes = FORMATS["openvino"].read(tmp_path / "model.xml")
    assert notes == NOTES and list(run(random_pixels((2, 3, 5, 7)))) == ["first", "second"]
    with pytest.raises(RuntimeError, match="shape"):
        run(random_pixels((2, 3, 6, 7)))


def test_a_file_for_every_shape_has_dynamic_axes(tmp_path):
    from swinv2_backbone.export.formats import EVERY_SHAPE

    written(tmp_path, EVERY_SHAPE)
    run, _ = FORMATS["openvino"].read(tmp_path / "model.xml")
    images = [random_pixels((1, 3, 1, 1)), random_pixels((3, 3, 9, 2))]
    assert all(one.absolute < 1e-6 for one in compare(run, Means(), images))


def test_weights_beside_the_file_are_not_overwritten(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"another's")
    with pytest.raises(FileExistsError, match="model.bin exists; give --overwrite"):
        check_target(tmp_path / "model.xml", "openvino", overwrite=False)
    check_target(tmp_path / "model.xml", "openvino", overwrite=True)


def detections() -> dict[str, Tensor]:
    boxes = torch.tensor([[0.0, 0, 9, 9], [5, 5, 20, 20], [1, 2, 3, 4], [1, 2, 3, 4]])
    scores = torch.tensor([0.9, 0.5, 0.5, 0.5])
    masks = torch.arange(4.0).view(4, 1, 1)
    return {"boxes": boxes, "scores": scores, "classes": torch.tensor([0, 1, 1, 2]), "masks": masks}


@pytest.mark.parametrize(
    ("order", "equal"), [([0, 3, 1, 2], True), ([0, 2, 3, 1], True), ([1, 0, 2, 3], False)]
)
def test_only_detections_of_equal_scores_may_swap(order, equal):
    expected = detections()
    found = {name: value[order] for name, value in detections().items()}
    found["scores"] = expected["scores"].clone()
    found["boxes"] += 3e-5
    aligned = align_ties(found, expected)
    same = all(torch.allclose(aligned[name], expected[name], atol=1e-4) for name in expected)
    assert same == equal and list(aligned) == list(expected)


def test_scores_keep_their_places_and_other_counts_are_left_alone():
    expected = detections()
    found = detections() | {"scores": torch.tensor([0.5, 0.9, 0.5, 0.5])}
    assert align_ties(found, expected)["scores"].tolist() == found["scores"].tolist()
    fewer = {name: value[:2] for name, value in detections().items()}
    assert align_ties(fewer, expected) is fewer


def test_an_output_with_a_second_name_inside_the_graph_keeps_its_own(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 3, 2, 2))
        for name in ("images", "boxes", "masks")
    ]
    nodes = [
        helper.make_node("Abs", ["images"], ["/model/Gather_13_output_0"]),
        helper.make_node("Identity", ["/model/Gather_13_output_0"], ["boxes"]),
        helper.make_node("Neg", ["/model/Gather_13_output_0"], ["masks"]),
    ]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    opset = helper.make_opsetid("", 20)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=10), tmp_path / "a.onnx")
    convert_onnx(tmp_path / "a.onnx", tmp_path / "a.xml", {})
    run, _ = FORMATS["openvino"].read(tmp_path / "a.xml")
    images = random_pixels((1, 3, 2, 2))
    assert list(run(images)) == ["boxes", "masks"]
    for name in ("a.xml", "a.onnx"):
        (found,) = run_in("openvino", tmp_path / name, [images], ["boxes", "masks"]).outputs
        assert torch.equal(found["boxes"], images) and list(found) == ["boxes", "masks"]


AFTER_FILES = """
import gc, os, signal, sys, time
import subprocess
import sys
from pathlib import Path
from swinv2_backbone.export.formats import FORMATS

files = [FORMATS["openvino"].read(Path(sys.argv[1])) for _ in range(2)]
while files:
    del files[0]  # in the order of their opening
    gc.collect()
seen = []
signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.1)
assert seen == [signal.SIGTERM]
"""


def test_signals_are_handled_after_files_were_open(tmp_path):
    written(tmp_path, Options(fixed=True))
    (file,) = tmp_path.glob("*.xml")
    command = [sys.executable, "-W", "ignore", "-c", AFTER_FILES, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
