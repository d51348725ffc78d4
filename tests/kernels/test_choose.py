"""The choice of a kernel: by device, by request, and by the changes that users make to a block."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from models import backbone, gradients, largest_difference, oracle_features, pictures, total
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import swinv2_backbone.block
from swinv2_backbone import SwinV2
from swinv2_backbone.kernels import choose as choice
from swinv2_backbone.kernels.choose import VARIABLE, Kernel, choose
from swinv2_backbone.kernels.cpu.block import tiled_block
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import PositionBias

CASE = {
    "dtype": torch.float32,
    "window": (8, 8),
    "head_dim": 32,
    "plain": True,
    "plain_bias": True,
}


def choose_on(device: str, asked: str, **changes) -> Kernel:
    """Choose for a device, whether or not it is present."""
    return choose(asked, torch.device(device), **CASE | changes)


@pytest.mark.parametrize("kernel", ["reference", "tiles"])
def test_every_kernel_equals_the_oracle(kernel):
    model, images = backbone(kernel=kernel).double(), pictures(2, 3, 45, 70).double()
    expected = oracle_features(model, images, window_sizes=(4, 4))
    assert largest_difference(model(images), expected) < 1e-11


@pytest.mark.parametrize(
    "device, changes, kernel",
    [
        ("cpu", {}, "tiles"),
        ("cpu", {"triton": False, "head_dim": 7, "dtype": torch.float64}, "tiles"),
        ("cpu", {"plain_bias": False}, "tiles"),
        ("cpu", {"plain": False}, "reference"),
        ("cuda", {}, "triton"),
        ("cuda", {"dtype": torch.bfloat16}, "triton"),
        ("cuda", {"plain": False}, "triton attention"),
        ("cuda", {"plain_bias": False}, "triton attention"),
        ("cuda", {"triton": False}, "reference"),
        ("cuda", {"bf16": False}, "reference"),
        ("cuda", {"head_dim": 16}, "reference"),
        ("cuda", {"dtype": torch.float64}, "reference"),
        ("cuda", {"window": (8, 80)}, "reference"),
        ("mps", {}, "reference"),
    ],
)
def test_auto_is_the_fastest_that_is_available(monkeypatch, device, changes, kernel):
    given = {"triton": True, "bf16": True} | changes
    triton, bf16 = given.pop("triton"), given.pop("bf16")
    monkeypatch.setattr(choice, "has_triton", lambda: triton)
    monkeypatch.setattr(choice, "supports_bf16", lambda device: bf16)
    assert choose_on(device, "auto", **given) is Kernel(kernel)


@pytest.mark.parametrize(
    "device, changes, words",
    [
        ("cpu", {}, "needs a GPU, but the model is on cpu"),
        ("cuda", {"head_dim": 16}, "supports only 32 channels per head, got 16"),
        ("cuda", {"dtype": torch.float64}, "supports only float32, .* got torch.float64"),
        ("cuda", {"window": (8, 80)}, "supports only windows up to 64 tokens wide, got 80"),
        ("cuda", {"triton": False}, "needs Triton and a C compiler"),
    ],
)
def test_a_kernel_that_is_not_available_is_refused(monkeypatch, device, changes, words):
    given = {"triton": True} | changes
    triton = given.pop("triton")
    monkeypatch.setattr(choice, "has_triton", lambda: triton)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match=f"kernel 'triton' {words}: use kernel='auto'"):
        choose_on(device, "triton", **given)


def test_tiles_are_refused_on_other_devices_than_a_cpu():
    with pytest.raises(ValueError, match="'tiles' runs on CPUs only, but the model is on cuda"):
        choose_on("cuda", "tiles")


@pytest.fixture
def tiled(monkeypatch) -> list[int]:
    """Record the number of channels of every block that is computed in tiles."""
    seen: list[int] = []

    def counted(x: Tensor, *args, **options) -> Tensor:
        seen.append(x.shape[1])
        return tiled_block(x, *args, **options)

    monkeypatch.setattr(swinv2_backbone.block, "tiled_block", counted)
    return seen


ALL_BLOCKS = [16, 16, 32, 32]  # channels of the blocks of a small backbone


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "copied", [lambda m: m, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))]
)
def test_the_blocks_of_a_model_on_a_cpu_are_computed_in_tiles(tiled, training, copied):
    model = copied(backbone(drop_path_rate=0.1)).train(training)
    model(pictures(1, 3, 33, 40))
    assert tiled == ALL_BLOCKS


def replica_of(module: nn.Module) -> nn.Module:
    """Replicate a module as ``nn.DataParallel`` does: parameters become attributes."""
    replica = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        replica._modules[name] = replica_of(child)
    for name, parameter in module._parameters.items():
        setattr(replica, name, parameter if parameter is None else parameter.clone())
    return replica


def test_the_replicas_of_a_data_parallel_model_are_computed_in_tiles(tiled):
    model, images = backbone(), pictures(1, 3, 33, 40)
    expected = model(images)
    assert largest_difference(replica_of(model)(images), expected) == 0
    assert tiled == 2 * ALL_BLOCKS
    model.layers[0].blocks[0].mlp.fc1.register_forward_hook(lambda m, given, out: 2 * out)
    tiled.clear()
    assert largest_difference(replica_of(model)(images), expected) > 0.01
    assert tiled == ALL_BLOCKS[1:]


def test_a_choice_is_made_once_per_stage_and_geometry(monkeypatch):
    kept = choice.kept_choice
    kept.cache_clear()
    model = backbone().eval()
    for _ in range(3):
        model(pictures(1, 3, 33, 40))
    assert kept.cache_info().misses == 1  # both stages have heads of 8 channels
    model.set_window_size((4, 3))
    model(pictures(1, 3, 33, 40))
    model.double()(pictures(1, 3, 33, 40).double())
    assert kept.cache_info().misses == 1 + 1 + 2
    assert kept.cache_info().maxsize is not None


def test_an_unknown_kernel_is_refused(monkeypatch):
    with pytest.raises(ValueError, match="kernel must be one of auto, .* got 'fast'"):
        backbone(kernel="fast")
    monkeypatch.setenv(VARIABLE, "slow")
    with pytest.raises(ValueError, match=f"environment variable {VARIABLE} .*got 'slow'"):
        backbone()


def kernels_of(model: SwinV2) -> set[str]:
    return {block.kernel for stage in model.layers for block in stage.blocks}


def test_the_environment_variable_overrides_the_argument(monkeypatch):
    assert kernels_of(backbone(kernel="tiles")) == {"tiles"}
    monkeypatch.setenv(VARIABLE, "reference")
    assert kernels_of(backbone(kernel="tiles")) == {"reference"}


def test_hooks_inside_a_block_are_called():
    model, seen = backbone().eval(), []
    block = model.layers[0].blocks[0]
    handle = block.mlp.fc1.register_forward_hook(lambda *_: seen.append("fc1"))
    images = pictures(1, 3, 33, 40)
    with torch.no_grad():
        hooked = model(images)
        assert seen == ["fc1"]
        handle.remove()
        assert largest_difference(model(images), hooked) < 1e-4
    assert seen == ["fc1"]


class Doubled(nn.Linear):
    """A layer that replaces ours, as in adapters and quantization."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


@pytest.mark.parametrize("kernel", ["reference", "tiles"])
@pytest.mark.parametrize("part, name", [("attn", "qkv"), ("attn", "proj"), ("mlp", "fc1")])
def test_a_replaced_layer_is_used(part, name, kernel):
    images, results = pictures(1, 3, 33, 40), []
    for replaced in (False, True):
        model = backbone(kernel=kernel).eval()
        owner = getattr(model.layers[1].blocks[0], part)
        if replaced:
            layer = getattr(owner, name)
            layer.__class__ = Doubled
        else:
            for parameter in getattr(owner, name).parameters():
                parameter.data.mul_(2)
        with torch.no_grad():
            results.append(model(images))
    assert largest_difference(*results) < 1e-4


def weight_norm(model: SwinV2) -> None:
    nn.utils.parametrizations.weight_norm(model.layers[0].blocks[0].mlp.fc2)


def another_epsilon(model: SwinV2) -> None:
    model.layers[0].blocks[0].norm1.eps = 0.1


def no_norm(model: SwinV2) -> None:
    model.layers[0].blocks[0].norm2 = nn.Identity()


def no_weights(model: SwinV2) -> None:
    model.layers[0].blocks[0].norm2 = nn.LayerNorm(16, elementwise_affine=False)


def narrower_mlp(model: SwinV2) -> None:
    mlp = model.layers[0].blocks[0].mlp
    for layer, shape in ((mlp.fc1, (24, 16)), (mlp.fc2, (16, 24))):
        layer.weight = nn.Parameter(layer.weight[: shape[0], : shape[1]].clone())
    mlp.fc1.bias = nn.Parameter(mlp.fc1.bias[:24].clone())


def forward_of_its_own(model: SwinV2) -> None:
    layer = model.layers[0].blocks[0].mlp.fc2
    layer.forward = lambda x: 3 * nn.functional.linear(x, layer.weight, layer.bias)


@pytest.mark.parametrize(
    "change", [weight_norm, another_epsilon, no_norm, no_weights, narrower_mlp, forward_of_its_own]
)
def test_a_changed_layer_counts_in_every_kernel(change):
    images, results = pictures(1, 3, 33, 40), []
    for kernel in ("reference", "tiles"):
        model = backbone(kernel=kernel)
        change(model)
        results.append(model(images))
        total(results[-1]).backward()
    assert largest_difference(*results) < 1e-4


# Changes of a block after its first forward; each returns a function that undoes it, or None.


class Adapter(nn.Module):
    """A layer with a low-rank update, as in LoRA."""

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(pictures(2, layer.in_features).to(layer.weight))
        self.up = nn.Parameter(pictures(layer.out_features, 2, seed=1).to(layer.weight))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.down.T @ self.up.T


class Rounded(Tensor):
    """A weight that linear layers round to few steps, like a quantized one."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is not nn.functional.linear:
            return super().__torch_function__(function, types, args, kwargs)
        x, weight, bias = args
        return nn.functional.linear(x, (8 * weight.as_subclass(Tensor)).round() / 8, bias)


class Tripled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


def forward_hook(block):
    return block.mlp.fc1.register_forward_hook(lambda m, given, out: 2 * out).remove


def forward_pre_hook(block):
    return block.attn.proj.register_forward_pre_hook(lambda m, given: (2 * given[0],)).remove


def backward_hook(block):
    doubled = lambda m, grads, _: tuple(2 * grad for grad in grads)  # noqa: E731
    return block.norm1.register_full_backward_hook(doubled).remove


def backward_pre_hook(block):
    doubled = lambda m, grads: tuple(2 * grad for grad in grads)  # noqa: E731
    return block.mlp.register_full_backward_pre_hook(doubled).remove


def hook_of_the_bias(block):
    return block.attn.cpb_mlp.register_forward_hook(lambda m, given, out: out / 2).remove


def adapter(block):
    layer = block.mlp.fc2
    block.mlp.fc2 = Adapter(layer)

    def undo():
        block.mlp.fc2 = layer

    return undo


def adapter_of_a_class(block):
    block.attn.qkv.__class__ = Doubled

    def undo():
        block.attn.qkv.__class__ = nn.Linear

    return undo


def parametrization(block):
    parametrize.register_parametrization(block.mlp.fc1, "weight", Tripled(), unsafe=True)

    def undo():
        parametrize.remove_parametrizations(block.mlp.fc1, "weight", leave_parametrized=False)

    return undo


def parametrization_of_a_bias(block):
    parametrize.register_parametrization(block.attn, "q_bias", Tripled(), unsafe=True)


def quantized_weight(block):
    weight = block.attn.proj.weight
    block.attn.proj.weight = nn.Parameter(weight.detach().as_subclass(Rounded))

    def undo():
        block.attn.proj.weight = weight

    return undo


def pruning(block):
    prune.l1_unstructured(block.mlp.fc1, "weight", amount=0.5)


def forward_of_an_instance(block):
    layer = block.mlp.fc2
    layer.forward = lambda x: 3 * nn.functional.linear(x, layer.weight, layer.bias)

    def undo():
        del layer.forward

    return undo


def another_mlp(block):
    block.mlp = nn.Sequential(nn.Linear(16, 16).double())
    nn.init.eye_(block.mlp[0].weight)
    nn.init.ones_(block.mlp[0].bias)


def no_bias(block):
    bias, block.attn.proj.bias = block.attn.proj.bias, None

    def undo():
        block.attn.proj.bias = bias

    return undo


def norm_without_weights(block):
    block.norm2.weight = block.norm2.bias = None


def norm_of_another_epsilon(block):
    block.norm1.eps = 0.1

    def undo():
        block.norm1.eps = 1e-5

    return undo


CHANGES = [
    forward_hook,
    forward_pre_hook,
    backward_hook,
    backward_pre_hook,
    hook_of_the_bias,
    adapter,
    adapter_of_a_class,
    parametrization,
    parametrization_of_a_bias,
    quantized_weight,
    pruning,
    forward_of_an_instance,
    another_mlp,
    no_bias,
    norm_without_weights,
    norm_of_another_epsilon,
]
Outcome = tuple[dict[str, Tensor], dict[str, Tensor | None]]


def outcome(model: SwinV2) -> Outcome:
    """Return features, and gradients of the parameters."""
    model.zero_grad()
    features = model(pictures(1, 3, 33, 40).double())
    total(features).backward()
    return features, gradients(model)


def changed(change: Callable, kernel: str) -> tuple[SwinV2, Outcome, Callable | None]:
    """Change the first block of a model after a forward; return also that forward's outcome."""
    torch.manual_seed(0)
    model = backbone(kernel=kernel).double()
    before = outcome(model)
    return model, before, change(model.layers[0].blocks[0])


def differ(one: Outcome, other: Outcome) -> bool:
    same_features = largest_difference(one[0], other[0]) < 1e-6
    names = one[1].keys() & other[1].keys()
    (mine, theirs) = ({name: found[1][name] for name in names} for found in (one, other))
    return not same_features or largest_difference(mine, theirs) > 1e-6


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_change_after_the_first_forward_is_honored(tiled, change):
    expected = outcome(changed(change, "reference")[0])
    model, before, undo = changed(change, "tiles")
    assert tiled == ALL_BLOCKS
    tiled.clear()
    actual = outcome(model)
    assert tiled == ALL_BLOCKS[1:]  # all but the changed block
    assert differ(actual, before)
    assert largest_difference(actual[0], expected[0]) < 1e-10
    assert largest_difference(actual[1], expected[1]) < 1e-10
    if undo is not None:
        undo()
        tiled.clear()
        assert not differ(outcome(model), before)
        assert tiled == ALL_BLOCKS


def test_a_layer_replaced_by_another_of_its_class_is_used_in_tiles(tiled):
    model = backbone().double()
    before = outcome(model)
    mlp = model.layers[0].blocks[0].mlp
    weight, mlp.fc1 = mlp.fc1.weight, nn.Linear(16, 64).double()
    tiled.clear()
    assert differ(outcome(model), before)
    mlp.fc1.weight = weight
    mlp.fc1.bias = backbone().double().layers[0].blocks[0].mlp.fc1.bias
    assert not differ(outcome(model), before)
    assert tiled == 2 * ALL_BLOCKS
    block = model.layers[0].blocks[0]
    assert block._parts._last.read(block)  # recorded anew, so not compared in every forward


@pytest.mark.parametrize(
    "register",
    [
        nn.modules.module.register_module_forward_hook,
        nn.modules.module.register_module_forward_pre_hook,
        nn.modules.module.register_module_full_backward_hook,
        nn.modules.module.register_module_full_backward_pre_hook,
    ],
    ids=lambda register: register.__name__,
)
def test_global_hooks_are_called(tiled, register):
    seen: set[type] = set()
    model = backbone().double()
    outcome(model)
    assert tiled == ALL_BLOCKS
    tiled.clear()
    handle = register(lambda module, *_: seen.add(type(module)))
    try:
        outcome(model)
    finally:
        handle.remove()
    assert nn.Linear in seen and not tiled
    outcome(model)
    assert tiled == ALL_BLOCKS


def test_a_block_of_another_position_bias_is_computed_in_tiles_once_it_is_marked(tiled):
    class Halved(PositionBias):
        def table(self, window: Size) -> Tensor:
            return super().table(window) / 2

    model = backbone().double()
    before = outcome(model)
    block = model.layers[0].blocks[0]
    block.attn.cpb_mlp.__class__ = Halved
    tiled.clear()
    by_modules = outcome(model)
    assert tiled == ALL_BLOCKS[1:] and differ(by_modules, before)
    block.mark_as_built()
    tiled.clear()
    assert not differ(outcome(model), by_modules)
    assert tiled == ALL_BLOCKS


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:FutureWarning")  # which is tested here
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of sizes that become constants
def test_a_trace_shows_the_operators_of_a_block():
    graph = torch.jit.trace(
        backbone(out_features=("res2",)).eval(),
        pictures(1, 3, 33, 40),
        strict=False,
        check_trace=False,
    ).inlined_graph
    kinds = {node.kind() for node in graph.nodes()}
    assert "aten::softmax" in kinds and not any(kind.startswith("swinv2::") for kind in kinds)
