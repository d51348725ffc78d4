"""Exported graphs call changed layers, and refuse changes of the parts that they replace."""

from __future__ import annotations

import pytest
import torch
from layer_changes import (
    EVERYWHERE,
    ONE_STAGE,
    adapter,
    everywhere,
    forward_hook,
    parametrization,
    small_backbone,
)
from models import largest_difference, pictures
from torch import nn

from swinv2_backbone import SwinV2Classifier
from swinv2_backbone.export.exportable import exportable_model
from swinv2_backbone.export.file import export_file
from swinv2_backbone.export.formats import FORMATS
from swinv2_backbone.export.graph import GraphBackbone


@torch.no_grad()
@pytest.mark.parametrize("change", EVERYWHERE, ids=lambda change: change.__name__)
def test_the_graph_calls_changed_layers(change):
    model, images = small_backbone(), pictures(2, 3, 18, 27).double()
    before = model(images)
    everywhere(change, model)
    expected = model(images)
    assert largest_difference(expected, before) > 1e-3
    assert largest_difference(GraphBackbone(model)(images), expected) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("format", ["torch-export", "onnx"])
@pytest.mark.parametrize(
    "change", [adapter, forward_hook, parametrization], ids=lambda change: change.__name__
)
def test_a_file_has_the_changes_at_every_size(format, change, tmp_path):
    model = small_backbone(**ONE_STAGE)
    everywhere(change, model)
    found, seen = exportable_model(model.float()), []
    path = tmp_path / f"model{FORMATS[format].suffix}"
    images = [255 * torch.rand(b, 3, h, w) for b, h, w in ((1, 1, 1), (2, 70, 97), (1, 33, 40))]
    export_file(
        found.model, found.expected, path, FORMATS[format], images, notes={}, show=seen.append
    )
    assert len(seen) == 3 and all(one.is_small for one in seen)


PARTS = {
    "": "the backbone",
    "patch_embed": "patch_embed",
    "layers.0": "layers.0",
    "layers.1.downsample": "layers.1.downsample",
    "layers.0.blocks.0": "layers.0.blocks.0",
    "layers.0.blocks.0.attn": "layers.0.blocks.0.attn",
    "layers.0.blocks.0.drop_path": "layers.0.blocks.0.drop_path",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_hook_of_a_part_that_the_graph_replaces_is_refused(part):
    model = small_backbone()
    handle = model.get_submodule(part).register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match=rf"{PARTS[part]} \(\w+\) .* it has a forward hook"):
        GraphBackbone(model)
    handle.remove()
    model.get_submodule(part).forward = lambda *given: given[0]
    with pytest.raises(ValueError, match=rf"{PARTS[part]} \(\w+\) .* its forward is not that of"):
        GraphBackbone(model)


def test_another_attention_is_refused():
    model = small_backbone()
    model.layers[0].blocks[0].attn = nn.Identity()
    with pytest.raises(ValueError, match=r"layers.0.blocks.0.attn \(Identity\) cannot be exported"):
        GraphBackbone(model)


def test_a_hook_of_the_classifier_is_refused():
    model = SwinV2Classifier(small_backbone(), 3)
    model.register_forward_hook(lambda module, given, out: 2 * out)
    with pytest.raises(ValueError, match="the classifier .* has a forward hook"):
        exportable_model(model)


@torch.no_grad()
def test_a_hook_of_the_bias_is_part_of_the_graph():
    model, images = small_backbone(), pictures(1, 3, 18, 27).double()
    bias = model.layers[0].blocks[0].attn.cpb_mlp
    bias.register_forward_hook(lambda module, given, table: table / 2)
    assert largest_difference(GraphBackbone(model)(images), model(images)) < 1e-11
