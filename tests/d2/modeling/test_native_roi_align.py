"""Models of either dialect pool by the native kernel, with Detectron2's results."""

from __future__ import annotations

import pytest
import torch
from detectron2 import modeling
from detectron2.layers import ROIAlign
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from small_configs import lazy_config, yaml_config

from swinv2_backbone.d2 import build_model, plan_from_lazy, with_native_roi_align
from swinv2_backbone.d2.modeling.roi_align import NativeROIAlign
from swinv2_backbone.kernels.cpu.native import VARIABLE

STEM = "cascade_mask_rcnn_swinv2_tiny"


def poolers(model: torch.nn.Module) -> list[ROIAlign]:
    return [part for part in model.modules() if isinstance(part, ROIAlign)]


def pooled(pooler: ROIPooler) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 4, 64 // stride, 48 // stride, generator=generator) for stride in (4, 8)]
    corners = torch.rand(2, 9, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 1 + corners.flip(1)], dim=2)
    return pooler(maps, [Boxes(one) for one in boxes])


@pytest.mark.parametrize("dialect", ["yaml", "lazy"])
def test_every_pooler_of_a_model_is_replaced(dialect):
    if dialect == "yaml":
        model = build_model(yaml_config(STEM, small=True))
    else:
        model = plan_from_lazy(lazy_config(STEM, small=True)).factories.model()
    found = poolers(model)
    assert len(found) == 8 and {type(one) for one in found} == {NativeROIAlign}


@pytest.mark.parametrize("ratio", [0, -1, 2])
@pytest.mark.parametrize("kind", ["ROIAlign", "ROIAlignV2"])
def test_a_pooler_gives_the_same(kind, ratio):
    def pooler() -> ROIPooler:
        return ROIPooler((5, 5), (1 / 4, 1 / 8), ratio, kind, canonical_box_size=16)

    native = with_native_roi_align(pooler())
    assert {type(one) for one in poolers(native)} == {NativeROIAlign}
    torch.testing.assert_close(pooled(native), pooled(pooler()), rtol=1e-5, atol=1e-6)


def test_hooks_of_a_pooler_stay():
    model, seen = modeling.build_model(yaml_config(STEM, small=True)), []
    for one in poolers(model):
        one.register_forward_hook(lambda *_: seen.append(1))
    with_native_roi_align(model).eval()
    with torch.no_grad():
        model([{"image": torch.zeros(3, 64, 64), "height": 64, "width": 64}])
    assert seen


def test_without_the_library_torchvision_computes(monkeypatch):
    native = with_native_roi_align(ROIPooler((5, 5), (1 / 4, 1 / 8), 0, "ROIAlignV2", 16))
    expected = pooled(native)
    monkeypatch.setenv(VARIABLE, "0")
    with torch.profiler.profile() as profile:
        found = pooled(native)
    assert any("torchvision::roi_align" in event.key for event in profile.key_averages())
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_traced_pooler_has_the_operator_of_torchvision():
    native = NativeROIAlign((3, 5), 0.25, 0, True)
    example = torch.rand(1, 2, 8, 8), torch.tensor([[0.0, 1, 2, 20, 25]])
    graph = torch.jit.trace(native, example).graph
    assert "torchvision::roi_align" in str(graph) and "swinv2::" not in str(graph)
    exported = torch.export.export(native, example).graph
    assert "torchvision.roi_align" in str(exported) and "swinv2." not in str(exported)


def test_a_scripted_or_compiled_pooler_has_the_operator_of_torchvision():
    native, plain = NativeROIAlign((3, 5), 0.25, 0, True), ROIAlign((3, 5), 0.25, 0, True)
    inputs = torch.rand(1, 2, 8, 8), torch.tensor([[0.0, 1, 2, 20, 25]])
    expected = plain(*inputs)
    assert torch.equal(torch.jit.script(native)(*inputs), expected)
    compiled = torch.compile(native, backend="eager", fullgraph=True)
    assert torch.equal(compiled(*inputs), expected)
