"""The native ROIAlign, at each level of the processor, against torchvision in float64."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor

from swinv2_backbone.kernels.cpu import roi_align as module
from swinv2_backbone.kernels.cpu.native import Native, Pooling, native, state
from swinv2_backbone.kernels.cpu.roi_align import can_align, roi_align

ops = pytest.importorskip("torchvision.ops")
BUILT = native()

pytestmark = pytest.mark.skipif(BUILT is None, reason=f"native kernels: {state()}")

POOLINGS = [
    Pooling((7, 7), 0.25, 0, True),
    Pooling((14, 14), 0.25, 0, True),
    Pooling((3, 5), 1 / 16, 2, True),
    Pooling((7, 7), 0.5, 0, False),
    Pooling((1, 2), 1.0, 3, False),
]


def levels() -> list[int]:
    bits = BUILT._library.swinv2_levels() if BUILT else 0
    return [level for level in range(2) if bits >> level & 1]


@pytest.fixture(params=levels(), ids=lambda level: f"level{level}", autouse=True)
def kernels(request, monkeypatch) -> None:
    found = Native(BUILT._library, request.param)
    monkeypatch.setattr(module, "native", lambda: found)


def drawn(height: int, width: int, scale: float, images: int = 2) -> tuple[Tensor, Tensor]:
    """Return maps, and boxes within them, across their edges, outside, empty and inside out."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(images, 3, height, width, generator=generator)
    size = torch.tensor([width, height] * 2) / scale
    inside = torch.rand(20, 4, generator=generator).view(20, 2, 2).sort(dim=1)[0].flatten(1)
    corners = [
        inside * size,
        (inside - 0.5) * 3 * size,  # across the edges, or outside
        torch.tensor([[0.3, 0.3, 0.3, 0.3], [0.6, 0.7, 0.2, 0.1], [0, 0, 1, 1]]) * size,
        (inside[:2] + 5) * size,
    ]
    boxes = torch.cat(corners)
    number = torch.randint(0, images, (len(boxes), 1), generator=generator)
    return maps, torch.cat([number.float(), boxes], dim=1)


def by_torchvision(maps: Tensor, boxes: Tensor, pooling: Pooling) -> Tensor:
    return ops.roi_align(maps, boxes.to(maps.dtype), *pooling)


def outcome(align, maps: Tensor, boxes: Tensor, pooling: Pooling) -> list[Tensor]:
    """Return the bins and the gradient of the maps."""
    maps = maps.clone().requires_grad_()
    out = align(maps, boxes, pooling)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(weights.to(out.dtype))
    return [out.detach(), maps.grad]


@pytest.mark.parametrize("size", [(37, 53), (16, 8), (5, 3), (1, 1)], ids=str)
@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_it_is_as_exact_as_torchvision(pooling, size):
    maps, boxes = drawn(*size, pooling.spatial_scale)
    exact = outcome(by_torchvision, maps.double(), boxes, pooling)
    found = outcome(roi_align, maps, boxes, pooling)
    for one, other, truth in zip(found, outcome(by_torchvision, maps, boxes, pooling), exact):
        limit = 2 * float((other - truth).abs().max()) + 1e-6
        assert float((one - truth).abs().max()) < limit


def test_numbers_of_boxes_and_threads_do_not_matter():
    (maps, boxes), pooling = drawn(37, 53, 0.25), POOLINGS[0]
    assert roi_align(maps, boxes[:0], pooling).shape == (0, 3, 7, 7)
    before, found = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(outcome(roi_align, maps, boxes, pooling))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_is_computed_in_float32(dtype):
    (maps, boxes), pooling = drawn(37, 53, 0.25), POOLINGS[0]
    found = roi_align(maps.to(dtype), boxes, pooling)
    assert torch.equal(found, roi_align(maps.to(dtype).float(), boxes, pooling).to(dtype))


def test_what_it_cannot_compute_is_left_to_torchvision():
    assert can_align(torch.rand(1, 1, 2, 2))
    for dtype in (torch.float64, torch.int64):
        assert not can_align(torch.ones(1, 1, 2, 2, dtype=dtype))
    assert not can_align(torch.rand(1, 1, 2, 2, device="meta"))


@pytest.mark.parametrize("number", [-1.0, 2.0, float("nan")])
def test_a_box_of_no_image_is_refused(number):
    maps, boxes = drawn(37, 53, 0.25)
    boxes[3, 0] = number
    with pytest.raises(ValueError, match="boxes of the images .*, but 2 images"):
        roi_align(maps, boxes, POOLINGS[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(value):
    (maps, boxes), pooling = drawn(37, 53, 0.25), POOLINGS[0]
    expected = roi_align(maps, boxes, pooling)
    spoiled = boxes.clone()
    spoiled[3, 2] = value
    found = roi_align(maps, spoiled, pooling)
    assert found[3].isnan().all()
    assert torch.equal(found[4:], expected[4:]) and torch.equal(found[:3], expected[:3])
    maps[0, 0, 8, 9] = value
    theirs = by_torchvision(maps.double(), boxes, pooling)
    assert torch.equal(roi_align(maps, boxes, pooling).isfinite(), theirs.isfinite())


def test_it_saves_no_maps():
    maps, boxes = drawn(37, 53, 0.25)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        roi_align(maps.requires_grad_(), boxes, POOLINGS[0])
    assert sum(x.untyped_storage().nbytes() for x in saved) < 2 * boxes.nbytes


@pytest.mark.heavy
def test_it_compiles():
    (maps, boxes), pooling = drawn(37, 53, 0.25), POOLINGS[0]
    compiled = torch.compile(roi_align, backend="aot_eager", fullgraph=True)
    expected, found = (outcome(one, maps, boxes, pooling) for one in (roi_align, compiled))
    assert all(map(torch.equal, expected, found))


def test_an_infinite_pixel_between_samples_has_no_effect():
    maps, boxes = torch.ones(1, 1, 64, 64), torch.tensor([[0.0, 0, 0, 64, 64]])
    maps[0, 0, 30, 30] = float("inf")
    assert roi_align(maps, boxes, Pooling((1, 1), 1.0, 2, True)).item() == 1


@pytest.mark.parametrize(
    "maps, boxes, words",
    [
        ((64, 20, 20), (3, 5), r"maps must be \(B, C, H, W\), got \(64, 20, 20\)"),
        ((2, 4, 16, 16, 16), (3, 5), r"maps must be \(B, C, H, W\)"),
        ((2, 4, 16, 16), (3, 4), r"boxes must be \(K, 5\), got \(3, 4\)"),
        ((2, 4, 16, 16), (5,), r"boxes must be \(K, 5\)"),
    ],
)
def test_wrong_shapes_are_refused(maps, boxes, words):
    with pytest.raises(ValueError, match=words):
        roi_align(torch.zeros(maps), torch.zeros(boxes), POOLINGS[0])


@pytest.mark.heavy
def test_one_graph_serves_all_numbers_of_boxes():
    (maps, boxes), pooling = drawn(37, 53, 0.25), POOLINGS[0]
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(roi_align, backend=counter, fullgraph=True, dynamic=True)
    for number in (4, 7, 11, 20):
        compiled(maps, boxes[:number], pooling)
    assert counter.frame_count == 1
