"""Changes that users make to layers: hooks, adapters, parametrizations, quantized weights.

Every change has effective weights, with which the layer alone computes the same.  A changed model
is compared with an unchanged one that has these weights, in its features and its gradients.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from models import TWO_STAGES, backbone, gradients, largest_difference, pictures, total
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from swinv2_backbone import SwinV2

BLOCK = "layers.0.blocks.1"
LINEAR = [
    f"{BLOCK}.attn.qkv",
    f"{BLOCK}.attn.proj",
    f"{BLOCK}.attn.cpb_mlp.0",
    f"{BLOCK}.attn.cpb_mlp.2",
    f"{BLOCK}.mlp.fc1",
    f"{BLOCK}.mlp.fc2",
    "layers.1.downsample.reduction",
    "patch_embed.proj",
]
NORMS = [
    f"{BLOCK}.norm1",
    f"{BLOCK}.norm2",
    f"{BLOCK}.norm3",
    "layers.1.downsample.norm",
    "patch_embed.norm",
    "norms.res3",
]
Weights = tuple[Tensor, Tensor | None]  # the effective weight and bias


def small_backbone(**options) -> SwinV2:
    model = backbone(TWO_STAGES | options, extra_norm_every=2).double().eval()
    with torch.no_grad():
        for name in LINEAR:  # an MLP of large weights has a bias of 0 or 16 everywhere
            if "cpb_mlp" in name:
                model.get_submodule(name).weight.mul_(0.3)
    return model


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    owner, _, last = name.rpartition(".")
    setattr(model.get_submodule(owner), last, layer)


# Changes of the layer with a name; each returns the effective weights.


def weights_of(layer: nn.Module) -> Weights:
    return (
        layer.weight.detach().clone(),
        None if layer.bias is None else layer.bias.detach().clone(),
    )


def gains(channels: int) -> Tensor:
    """Return a factor for each channel; a norm that follows would hide a common one."""
    return torch.linspace(0.5, 2, channels, dtype=torch.float64)


def gained(out: Tensor) -> Tensor:
    """Multiply the output of a layer by the gains of its channels."""
    return out * (gains(out.shape[1])[:, None, None] if out.ndim == 4 else gains(out.shape[-1]))


def gained_weights(layer: nn.Module) -> Weights:
    weight, bias = weights_of(layer)
    factors = gains(len(weight))
    return factors.view(
        -1, *(1,) * (weight.ndim - 1)
    ) * weight, None if bias is None else factors * bias


def forward_hook(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    layer.register_forward_hook(lambda module, given, out: gained(out))
    return gained_weights(layer)


def forward_hook_with_keywords(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    layer.register_forward_hook(lambda module, given, options, out: gained(out), with_kwargs=True)
    return gained_weights(layer)


def forward_pre_hook(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    layer.register_forward_pre_hook(lambda module, given: (-given[0],))
    weight, bias = weights_of(layer)
    return -weight, bias


def own_forward(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    original = layer.forward
    layer.forward = lambda x: gained(original(x))
    return gained_weights(layer)


def subclass(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    kind = type(layer)
    forward = {"forward": lambda self, x: gained(kind.forward(self, x))}
    layer.__class__ = type("Gained", (kind,), forward)
    return gained_weights(layer)


class Adapter(nn.Module):
    """A layer with a low-rank update, as in LoRA; a norm is multiplied instead."""

    def __init__(self, layer: nn.Module):
        super().__init__()
        self.base_layer = layer
        if isinstance(layer, nn.LayerNorm):
            return
        weight = layer.weight
        rest = (1,) * (weight.ndim - 2)
        self.down = nn.Parameter(pictures(2, *weight.shape[1:]).to(weight) / 4)
        self.up = nn.Parameter(pictures(len(weight), 2, *rest, seed=1).to(weight) / 4)

    def forward(self, x: Tensor) -> Tensor:
        layer = self.base_layer
        if isinstance(layer, nn.LayerNorm):
            return gained(layer(x))
        if isinstance(layer, nn.Conv2d):
            return layer(x) + F.conv2d(F.conv2d(x, self.down, stride=layer.stride), self.up)
        return layer(x) + F.linear(F.linear(x, self.down), self.up)


def adapter(model: SwinV2, name: str) -> Weights:
    adapted = Adapter(model.get_submodule(name))
    replace(model, name, adapted)
    weight, bias = weights_of(adapted.base_layer)
    if isinstance(adapted.base_layer, nn.LayerNorm):
        return gained_weights(adapted.base_layer)
    update = adapted.up.flatten(1) @ adapted.down.flatten(1)
    return weight + update.detach().view_as(weight), bias


class Gained(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return gains(len(weight)).view(-1, *(1,) * (weight.ndim - 1)) * weight


def parametrization(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    parametrize.register_parametrization(layer, "weight", Gained(), unsafe=True)
    return weights_of(layer)


def weight_norm(model: SwinV2, name: str) -> Weights:
    layer = parametrizations.weight_norm(model.get_submodule(name))
    with torch.no_grad():
        norms = layer.parametrizations.weight.original0
        norms.mul_(gains(len(norms)).view_as(norms))
    return weights_of(layer)


def spectral_norm(model: SwinV2, name: str) -> Weights:
    return weights_of(parametrizations.spectral_norm(model.get_submodule(name)).eval())


def orthogonal(model: SwinV2, name: str) -> Weights:
    return weights_of(parametrizations.orthogonal(model.get_submodule(name)))


def pruning(model: SwinV2, name: str) -> Weights:
    return weights_of(prune.l1_unstructured(model.get_submodule(name), "weight", amount=0.5))


class Quantized(Tensor):
    """A weight in steps of 1/4, stored as whole numbers, as quantized tensors are.

    It means something to the layers' functions alone, and requires no gradient.
    """

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function in (F.linear, F.conv2d, torch.conv2d, F.layer_norm, torch.layer_norm):
            args = [x.as_subclass(Tensor) / 4 if isinstance(x, cls) else x for x in args]
            kwargs = {
                key: x.as_subclass(Tensor) / 4 if isinstance(x, cls) else x
                for key, x in (kwargs or {}).items()
            }
            return function(*args, **kwargs)
        return super().__torch_function__(function, types, args, kwargs or {})


def quantized(model: SwinV2, name: str) -> Weights:
    layer = model.get_submodule(name)
    weight, bias = weights_of(layer)
    steps = (4 * weight).round()
    layer.weight = nn.Parameter(steps.as_subclass(Quantized), requires_grad=False)
    return steps / 4, bias


EVERYWHERE = [
    forward_hook,
    forward_hook_with_keywords,
    forward_pre_hook,
    own_forward,
    subclass,
    adapter,
    parametrization,
    pruning,
    quantized,
]
OF_MATRICES = [weight_norm, spectral_norm, orthogonal]
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


def with_weights(model: SwinV2, name: str, weights: Weights) -> SwinV2:
    """Return a model whose layer has effective weights."""
    layer = model.get_submodule(name)
    with torch.no_grad():
        layer.weight.copy_(weights[0])
        if weights[1] is not None:
            layer.bias.copy_(weights[1])
    return model


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
    assert largest_difference(actual[0], outcome(small_backbone())[0]) > 1e-4


def everywhere(change: Callable[[SwinV2, str], Weights], model: SwinV2) -> dict[str, Weights]:
    """Change all layers; return the effective weights by the layer's name."""
    return {name: change(model, name) for name in LINEAR + NORMS}


@pytest.mark.parametrize(
    "change",
    [adapter, pytest.param(forward_hook, marks=pytest.mark.slow)],
    ids=lambda c: c.__name__,
)
def test_changed_layers_are_called_in_a_compiled_model(change):
    expected = small_backbone(kernel="reference")
    changed = small_backbone()
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
    ["layers.0", "layers.0.blocks.1", f"{BLOCK}.attn", f"{BLOCK}.attn.cpb_mlp", f"{BLOCK}.mlp"],
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
