"""A file for one image in ncnn, converted by pnnx."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from models import backbone, pictures

from swinv2_backbone.export.formats import FORMATS, Options
from swinv2_backbone.export.graph import GraphBackbone
from swinv2_backbone.export.runtimes import check_in, check_runtime

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("ncnn", "pnnx")),
    reason="needs ncnn and pnnx",
)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (70, 93)], ids=str)
def test_ncnn_returns_the_outputs_of_the_model(size, tmp_path):
    """The windows of the second size are padded; the outputs differ in shape, so in their order."""
    model, images = GraphBackbone(backbone().eval()).eval(), pictures(1, 3, *size)
    check_runtime("ncnn", "onnx", fixed=True, batch=1)
    FORMATS["onnx"].write(model, images, tmp_path / "model.onnx", {}, Options(fixed=True))
    found = check_in("ncnn", tmp_path / "model.onnx", model, [images]).differences
    assert [one.output for one in found] == ["res2", "res3"]
    assert all(one.relative < 1e-4 for one in found)
