"""The files of Detectron2's evaluators exist whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from detectron2.utils.file_io import PathManager

from swinv2_backbone.d2.evaluation import evaluators
from swinv2_backbone.d2.evaluation.whole_files import whole_files


def test_text_and_bytes_are_those_that_detectron2_writes(tmp_path):
    with whole_files():
        with PathManager.open(str(tmp_path / "a.json"), "w") as file:
            json.dump({"ä": [1, 2]}, file, ensure_ascii=False)
            file.flush()
        with PathManager.open(str(tmp_path / "a.pth"), "wb") as file:
            torch.save({"a": torch.ones(3)}, file)
        with PathManager.open(str(tmp_path / "a.json")) as file:
            assert json.load(file) == {"ä": [1, 2]}
    assert torch.equal(torch.load(tmp_path / "a.pth", weights_only=True)["a"], torch.ones(3))
    assert "open" not in vars(PathManager)


@pytest.mark.parametrize(("mode", "content"), [("w", "half"), ("wb", b"half")])
def test_an_interrupted_write_leaves_the_earlier_file(mode, content, tmp_path):
    path = tmp_path / "results.json"
    path.write_text("earlier")
    opened = str(path), mode
    with pytest.raises(KeyboardInterrupt), whole_files(), PathManager.open(*opened) as file:
        file.write(content)
        raise KeyboardInterrupt
    assert path.read_text() == "earlier" and os.listdir(tmp_path) == ["results.json"]
    assert "open" not in vars(PathManager)


@pytest.mark.parametrize(
    "evaluator",
    [
        evaluators.DetectionEvaluator,
        evaluators.SemanticEvaluator,
        evaluators.PanopticEvaluator,
        evaluators.LvisEvaluator,
    ],
)
def test_every_evaluator_writes_whole_files(evaluator, tmp_path, monkeypatch):
    """The panoptic and LVIS evaluators need libraries that are not installed everywhere."""
    (base,) = {one for one in evaluator.__bases__ if one is not evaluators.WholeFiles}
    path = tmp_path / "predictions.json"

    def evaluate(self) -> None:
        with PathManager.open(str(path), "w") as file:
            file.write("[]")
            assert not path.exists()

    monkeypatch.setattr(base, "evaluate", evaluate)
    evaluator.evaluate(object.__new__(evaluator))
    assert Path(path).read_text() == "[]"


def test_files_are_written_in_every_way_that_python_has(tmp_path):
    with whole_files():
        with whole_files(), PathManager.open(tmp_path / "a.txt", "w") as file:
            file.writelines(["a\n", "b\n"])
        file = PathManager.open(str(tmp_path / "b.txt"), "w")
        file.write("closed")
        file.close()
        PathManager.open(str(tmp_path / "c.txt"), "w").write("dropped")
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"a.txt": "a\nb\n", "b.txt": "closed", "c.txt": "dropped"}
    assert "open" not in vars(PathManager)
