"""The graph for one shape equals the model, has at most four axes, and no arithmetic on sizes."""

from __future__ import annotations

import pytest
import torch
from layer_changes import EVERYWHERE, everywhere, small_backbone
from models import FOUR_STAGES, backbone, largest_difference, pictures

from swinv2_backbone.export.fixed import fix_shape
from swinv2_backbone.export.formats.tracing import trace
from swinv2_backbone.export.graph import GraphBackbone

SIZES = [(1, 1, 1), (2, 130, 97), (1, 33, 70), (2, 3, 5), (3, 64, 64), (1, 7, 150), (1, 150, 31)]
OPTIONS = [
    {},
    {"window_size": (4, (3, 5), 7, (1, 2)), "pretrained_window_sizes": 6, "extra_norm_every": 2},
    {"small_map_rule": "square"},
]


@torch.no_grad()
@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "windows", "square"])
def test_a_graph_for_one_shape_equals_the_model(options):
    model = backbone(FOUR_STAGES, **options).eval().double()
    for batch, *size in SIZES:
        images = pictures(batch, 3, *size).double()
        fixed = fix_shape(GraphBackbone(model), images)
        assert largest_difference(fixed(images), model(images)) < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("change", EVERYWHERE, ids=lambda change: change.__name__)
def test_a_graph_for_one_shape_calls_changed_layers(change):
    model, images = small_backbone(), pictures(2, 3, 18, 27).double()
    everywhere(change, model)
    assert (
        largest_difference(fix_shape(GraphBackbone(model), images)(images), model(images)) < 1e-11
    )


def test_its_operators_are_those_that_every_runtime_has():
    images = pictures(2, 3, 45, 70)
    graph = trace(GraphBackbone(backbone(FOUR_STAGES).eval()).eval(), images, fixed=True).graph
    values = [node.meta["val"] for node in graph.nodes if node.op == "call_function"]
    assert max(value.ndim for value in values) == 4
    assert {value.dtype for value in values} == {torch.float32}  # no indices, no boolean masks


def test_no_sum_is_over_one_axis():
    """Pnnx drops such a sum from an ONNX file, without a warning."""
    images = pictures(1, 3, 45, 70)
    graph = trace(GraphBackbone(backbone(FOUR_STAGES).eval()).eval(), images, fixed=True).graph
    sums = [node for node in graph.nodes if node.target == torch.ops.aten.sum.dim_IntList]
    assert len(sums) == 2 * sum(FOUR_STAGES["depths"])  # of the queries and of the keys
    assert all(len(node.args[1]) == 2 for node in sums)


def test_constants_are_contiguous():
    """litert-torch 0.10 takes one for another if they are not."""
    images = pictures(1, 3, 13, 70)  # 4 rows of tokens for windows of 5 rows
    model = GraphBackbone(backbone(FOUR_STAGES, window_size=5).eval()).eval()
    constants = trace(model, images, fixed=True).state_dict
    assert "stages.0.blocks.0.bias" in constants
    assert all(constant.is_contiguous() for constant in constants.values())
