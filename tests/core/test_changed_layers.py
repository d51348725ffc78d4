"""Changes that users make to layers: each is honored in every kernel, with its gradients."""

from __future__ import annotations

import pytest
import torch
from layer_changes import (
    BLOCK,
    EVERYWHERE,
    LINEAR,
    NORMS,
    OF_MATRICES,
    ONE_STAGE,
    Gained,
    adapter,
    everywhere,
    forward_hook,
    forward_pre_hook,
    parametrization,
    quantized,
    replace,
    small_backbone,
    weight_norm,
    with_weights,
)
from models import gradients, largest_difference, pictures, total
from torch import Tensor, nn
from torch.nn.utils import parametrize

FIRST = [forward_hook, adapter, parametrization, weight_norm, quantized]  # the rest is slow
CASES = [
    pytest.param(
        change,
        name,
        id=f"{change.__name__}-{name}",
        marks=() if change in FIRST else pytest.mark.slow,
    )
    for change in EVERYWHERE + OF_MATRICES
    for name in LINEAR + (NORMS if change in EVERYWHERE else [])
]
Outcome = tuple[dict[str, Tensor], dict[str, Tensor]]


def outcome(model: nn.Module, names: set[str] | None = None) -> Outcome:
    """Return features, and the gradients of the images and of parameters that are named."""
    images = pictures(2, 3, 18, 27).double().requires_grad_()
    features = model(images, [(18, 27), (15, 20)])
    total(features).backward()
    found = {"images": images.grad} | gradients(model)
    return features, {k: v for k, v in found.items() if v is not None and (not names or k in names)}


@pytest.mark.parametrize("kernel", [pytest.param("reference", marks=pytest.mark.slow), "tiles"])
@pytest.mark.parametrize("change, name", CASES)
def test_a_changed_layer_computes_as_with_its_effective_weights(change, name, kernel):
    changed = small_backbone(kernel=kernel)
    outcome(changed)  # a change after the first forward counts as well
    changed.zero_grad()
    effective = change(changed, name)
    expected = outcome(with_weights(small_backbone(kernel="reference"), name, effective))
    actual = outcome(changed)
    assert largest_difference(actual[0], expected[0]) < 1e-11
    shared = {key for key in expected[1] if not key.startswith(f"{name}.")}
    assert shared <= actual[1].keys()
    assert (
        largest_difference(
            {key: actual[1][key] for key in shared}, {key: expected[1][key] for key in shared}
        )
        < 1e-10
    )
    assert largest_difference(actual[0], outcome(small_backbone())[0]) > 1e-6


@pytest.mark.heavy
def test_hooks_count_in_compiled_parts_that_were_called_before():
    model, images = small_backbone(), pictures(1, 3, 8, 12).double()
    bias, embed = model.get_submodule(f"{BLOCK}.attn.cpb_mlp"), model.patch_embed
    compiled = [torch.compile(part, backend="eager") for part in (bias, embed)]

    def results(bias: nn.Module, embed: nn.Module) -> dict[str, Tensor]:
        return {"bias": bias((4, 4)), "tokens": embed(images, ((2, 3),))}

    before = results(*compiled)
    assert largest_difference(before, results(bias, embed)) < 1e-11
    for name in (f"{BLOCK}.attn.cpb_mlp.0", "patch_embed.proj"):
        forward_hook(model, name)
    hooked = results(bias, embed)
    assert largest_difference(before, hooked) > 1e-3
    assert largest_difference(results(*compiled), hooked) < 1e-11


@pytest.mark.slow
@pytest.mark.parametrize("change", [adapter, forward_hook], ids=lambda change: change.__name__)
def test_changed_layers_are_called_in_a_compiled_model(change):
    expected = small_backbone(**ONE_STAGE, kernel="reference")
    changed = small_backbone(**ONE_STAGE)
    for name, weights in everywhere(change, changed).items():
        with_weights(expected, name, weights)
    compiled = torch.compile(changed, backend="eager")
    actual, expected = outcome(compiled), outcome(expected)
    assert largest_difference(actual[0], expected[0]) < 1e-11
    assert largest_difference({"x": actual[1]["images"]}, {"x": expected[1]["images"]}) < 1e-10


def test_global_hooks_see_every_layer():
    model, seen = small_backbone(), set()
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: seen.add(module))
    try:
        model(pictures(1, 3, 18, 27).double())
    finally:
        handle.remove()
    assert {model.get_submodule(name) for name in LINEAR + NORMS} <= seen


def test_a_bias_of_a_replaced_qkv_is_used():
    """The fused weight has its bias in ``q_bias`` and ``v_bias``; a layer of its own adds to it."""
    changed, expected = small_backbone(), small_backbone(kernel="reference")
    attn = changed.get_submodule(f"{BLOCK}.attn")
    layer = nn.Linear(16, 48).double()
    with torch.no_grad():
        layer.weight.copy_(attn.qkv.weight)
        layer.bias[16:32] = 0  # the keys of an unchanged model have none
        theirs = expected.get_submodule(f"{BLOCK}.attn")
        theirs.q_bias += layer.bias[:16]
        theirs.v_bias += layer.bias[32:]
    attn.qkv = layer
    for model in (changed, changed.train()):
        assert largest_difference(outcome(model)[0], outcome(expected)[0]) < 1e-11


def test_a_parametrized_logit_scale_is_used():
    changed, expected = small_backbone(), small_backbone(kernel="reference")
    attn = changed.get_submodule(f"{BLOCK}.attn")
    parametrize.register_parametrization(attn, "logit_scale", Gained(), unsafe=True)
    parametrize.register_parametrization(attn, "q_bias", Gained(), unsafe=True)
    theirs = expected.get_submodule(f"{BLOCK}.attn")
    with torch.no_grad():
        theirs.logit_scale.copy_(attn.logit_scale)
        theirs.q_bias.copy_(attn.q_bias)
    actual = outcome(changed)
    assert largest_difference(actual[0], outcome(expected)[0]) < 1e-11
    assert actual[1][f"{BLOCK}.attn.parametrizations.logit_scale.original"].abs().max() > 0


def test_a_buffer_in_the_place_of_a_parameter_is_used():
    changed, expected = small_backbone(), small_backbone(kernel="reference")
    for model in (changed, expected):
        attn = model.get_submodule(f"{BLOCK}.attn")
        scale = attn.logit_scale.detach() / 2
        del attn.logit_scale
        attn.register_buffer("logit_scale", scale)
    assert largest_difference(outcome(changed)[0], outcome(expected)[0]) < 1e-11


def test_a_layer_of_another_dtype_is_called():
    """Kernels would convert its weights; the layer itself may refuse its input or accept it."""
    model = small_backbone().float()
    model.get_submodule(f"{BLOCK}.mlp.fc1").double()
    with pytest.raises(RuntimeError, match="dtype"):
        model(pictures(1, 3, 18, 27))
    model = small_backbone().bfloat16()
    norm = model.get_submodule(f"{BLOCK}.norm1").float()
    seen = []
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm, "forward", lambda x: seen.append(x.dtype) or x)
        model(pictures(1, 3, 18, 27).bfloat16())
    assert seen == [torch.bfloat16]


def test_the_bias_of_half_precision_is_computed_in_float32_if_its_layers_are_called():
    exact, half = small_backbone(), small_backbone()
    name = f"{BLOCK}.attn.cpb_mlp"
    exact.get_submodule(name).load_state_dict(half.bfloat16().get_submodule(name).state_dict())
    plain, table = (m.get_submodule(name).table((4, 4)) for m in (half, exact))
    assert plain.dtype == torch.float32 and (plain - table).abs().max() < 1e-5
    forward_pre_hook(half, f"{name}.0")
    forward_pre_hook(exact, f"{name}.0")
    called, table = (m.get_submodule(name).table((4, 4)) for m in (half, exact))
    assert called.dtype == torch.float32 and (called - table).abs().max() < 0.2


def test_a_cached_bias_is_dropped_when_an_adapter_is_merged():
    """peft merges through ``weight.data``, which changes no version of the weight."""
    model = small_backbone().requires_grad_(False)
    images, name = pictures(1, 3, 18, 27).double(), f"{BLOCK}.attn.cpb_mlp.2"
    before = model(images)
    layer = model.get_submodule(name)
    effective = adapter(model, name)
    layer.weight.data += effective[0] - layer.weight
    replace(model, name, layer)
    expected = with_weights(small_backbone(kernel="reference"), name, effective)(images)
    assert largest_difference(model(images), expected) < 1e-11
    assert largest_difference(before, expected) > 1e-4


class Wrapper(nn.Module):
    """Another module that passes everything on, as wrappers of checkpointing and of peft do."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.wrapped = module

    def forward(self, *args, **options):
        return self.wrapped(*args, **options)

    def __getattr__(self, name: str):
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.wrapped, name)


@pytest.mark.parametrize(
    "name",
    ["layers.0", "layers.0.blocks.0", f"{BLOCK}.attn", f"{BLOCK}.attn.cpb_mlp", f"{BLOCK}.mlp"],
)
def test_windows_reach_what_is_wrapped(name):
    changed, expected = small_backbone(), small_backbone(kernel="reference")
    replace(changed, name, Wrapper(changed.get_submodule(name)))
    for model in (changed, expected):
        model.set_window_size((5, 3))
        model.set_pretrained_window_sizes((6, 4))
    assert changed.window_sizes == ((5, 5), (3, 3))
    assert changed.pretrained_window_sizes == ((6, 6), (4, 4))
    assert largest_difference(outcome(changed)[0], outcome(expected)[0]) < 1e-11


def test_overlapping_patches_are_embedded_by_their_convolution():
    model = small_backbone()
    conv = nn.Conv2d(3, 16, kernel_size=7, stride=4, padding=3).double()
    model.patch_embed.proj = conv
    images = pictures(1, 3, 16, 24).double()
    expected = model.patch_embed.norm(conv(images).flatten(2).mT[0])
    assert torch.equal(model.patch_embed(images, ((4, 6),)), expected)


def test_a_convolution_of_another_stride_is_refused():
    model = small_backbone()
    model.patch_embed.proj = nn.Conv2d(3, 16, kernel_size=4, stride=2).double()
    with pytest.raises(ValueError, match="patch_embed.proj must divide heights and widths by 4"):
        model(pictures(1, 3, 16, 24).double())
