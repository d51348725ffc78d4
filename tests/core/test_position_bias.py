"""The log-spaced position bias: its formula, its extrapolation, and the caching of its table."""

import copy
from math import prod

import pytest
import torch
from models import backbone, pictures, total
from oracle import log_spaced, position_bias, randomize
from torch import Tensor, nn

from swinv2_backbone import VARIANTS, SwinV2, build_backbone
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import (
    PositionBias,
    bias_matrix,
    log_spaced_offsets,
    offset_index,
    offsets_within,
)

CPU = torch.device("cpu")


def random_bias(heads: int = 3, pretrained: Size = (8, 8)) -> PositionBias:
    """Build a bias with the weights that `randomize` gives to ``cpb_mlp``."""
    return randomize(nn.ModuleDict({"cpb_mlp": PositionBias(heads, pretrained)}), 0)["cpb_mlp"]


def matrix_of(table: Tensor, window: Size) -> Tensor:
    """Return the bias from query i to key j, (nH, N, N)."""
    return bias_matrix(offsets_within(table, window, window))


def matrix(bias: PositionBias, window: Size) -> Tensor:
    return matrix_of(bias(window), window)


def pair_offsets(window: Size) -> Tensor:
    """Return query minus key, rows and columns, (N, N, 2)."""
    own = torch.cartesian_prod(*(torch.arange(length) for length in window)).double()
    return own[:, None] - own[None]


def expected_bias(bias: PositionBias, window: Size, pretrained: Size) -> Tensor:
    state = {f"a.cpb_mlp.{name}": value.double() for name, value in bias.state_dict().items()}
    return position_bias(state, "a", pair_offsets(window), pretrained).permute(2, 0, 1)


def shared_offsets(table: Tensor, window: Size, smaller: Size) -> Tensor:
    """Return the part of a table that a smaller window shares, (nH, 2 h - 1, 2 w - 1)."""
    table = table.view(len(table), 2 * window[0] - 1, 2 * window[1] - 1)
    rows, columns = (large - small for large, small in zip(window, smaller))
    return table[:, rows : table.shape[1] - rows, columns : table.shape[2] - columns]


def count_mlp_runs(monkeypatch: pytest.MonkeyPatch) -> list[Size]:
    """Record the window of every run of a position bias's MLP from now on."""
    runs, table = [], PositionBias.table

    def counted(self: PositionBias, window: Size) -> Tensor:
        runs.append(window)
        return table(self, window)

    monkeypatch.setattr(PositionBias, "table", counted)
    return runs


@pytest.mark.parametrize("pretrained", [(8, 8), (4, 7), (1, 5)])
@pytest.mark.parametrize("window", [(8, 8), (1, 1), (3, 5), (6, 2), (1, 9)])
def test_bias_equals_the_oracles_formula(window, pretrained):
    bias = random_bias(pretrained=pretrained)
    expected = expected_bias(bias, window, pretrained)
    torch.testing.assert_close(matrix(bias, window).double(), expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(matrix(bias.double(), window), expected, rtol=0, atol=1e-12)


def test_offset_index_is_that_of_the_published_tables():
    rows, columns = 3, 4
    index = offset_index((rows, columns), CPU).view(12, 12)
    for i in range(12):
        for j in range(12):
            dh, dw = i // columns - j // columns, i % columns - j % columns
            assert index[i, j] == (dh + rows - 1) * (2 * columns - 1) + (dw + columns - 1)


@pytest.mark.parametrize("pretrained", [1, 2, 6, 8, 12, 16])
def test_coordinates_are_those_of_the_formula_at_every_length(pretrained):
    longest = log_spaced_offsets(64, pretrained, CPU, torch.float32)
    expected = log_spaced(torch.arange(-63, 64).double(), pretrained)
    torch.testing.assert_close(longest.double(), expected, rtol=1e-6, atol=0)
    for length in range(1, 64):
        shorter = log_spaced_offsets(length, pretrained, CPU, torch.float32)
        assert torch.equal(shorter, longest[64 - length : 63 + length])


@pytest.mark.parametrize("heads", [1, 3, 6, 24])
@pytest.mark.parametrize(
    "small, large",
    [
        ((8, 8), (24, 24)),
        ((4, 6), (24, 12)),
        ((12, 12), (24, 24)),
        ((1, 1), (8, 8)),
        ((7, 3), (9, 30)),
    ],
)
def test_growing_the_window_keeps_the_bias_of_every_shared_offset_to_the_bit(small, large, heads):
    bias = random_bias(heads, (8, 8))
    assert torch.equal(shared_offsets(table_of(bias, large), large, small), table_of(bias, small))


def test_a_clipped_window_has_the_bias_of_the_same_offsets():
    table = random_bias()((5, 4))
    whole = matrix_of(table, (5, 4)).view(3, 5, 4, 5, 4)
    for h, w in ((1, 1), (2, 4), (5, 3)):
        part = bias_matrix(offsets_within(table, (5, 4), (h, w)))
        assert torch.equal(part, whole[:, :h, :w, :h, :w].reshape(3, h * w, h * w))


def table_of(bias: PositionBias, window: tuple[int, int]) -> Tensor:
    """Return the table as (nH, 2 Mh - 1, 2 Mw - 1)."""
    return bias.table(window).unflatten(1, (2 * window[0] - 1, 2 * window[1] - 1))


def test_a_larger_window_extrapolates_rather_than_stretches():
    grown = log_spaced_offsets(32, 16, CPU, torch.float64)
    assert grown.max().item() == pytest.approx(1.3773, abs=5e-5)
    assert grown.min().item() == pytest.approx(-1.3773, abs=5e-5)
    assert log_spaced_offsets(32, 32, CPU, torch.float64).max().item() == pytest.approx(
        1.0566, abs=5e-5
    )
    assert log_spaced_offsets(16, 16, CPU, torch.float64).max().item() == pytest.approx(
        1.0566, abs=5e-5
    )


def test_a_model_whose_window_grows_extrapolates_too():
    model = backbone(window_size=4).double()
    model.set_window_size(9)
    for stage in model.layers:
        bias = stage.blocks[0].attn.cpb_mlp
        expected = expected_bias(bias, stage.window_size, (4, 4))
        torch.testing.assert_close(matrix(bias, stage.window_size), expected, rtol=0, atol=1e-12)


def pretrained_windows(model: SwinV2) -> list[set[Size]]:
    """Return the pretrained windows of all blocks of each stage."""
    return [
        {block.attn.cpb_mlp.pretrained_window for block in stage.blocks} for stage in model.layers
    ]


@pytest.mark.parametrize(
    "name, pretrained",
    [
        ("swinv2_tiny_window16_256", (16, 16, 16, 8)),
        ("swinv2_base_window12_192", (12, 12, 12, 6)),
        ("swinv2_large_window12to24_192to384", (12, 12, 12, 6)),
    ],
)
def test_pretrained_windows_of_a_variant_reach_every_block_and_remain_at_a_new_window(
    name, pretrained
):
    expected = [{(p, p)} for p in pretrained]
    with torch.device("meta"):
        model = build_backbone(name)
        assert pretrained_windows(model) == expected
        assert pretrained_windows(build_backbone(name, window_size=32)) == expected
    assert model.pretrained_window_sizes == tuple((p, p) for p in pretrained)
    model.set_window_size((32, (7, 9), 5, 3))
    assert pretrained_windows(model) == expected
    assert model.window_sizes == ((32, 32), (7, 9), (5, 5), (3, 3))
    assert VARIANTS[name].pretrained_window_sizes == pretrained


def test_a_pretrained_window_of_one_is_finite():
    bias = random_bias(pretrained=(1, 1))
    bias((5, 4)).sum().backward()
    assert bias((5, 4)).isfinite().all()
    assert all(p.grad.isfinite().all() for p in bias.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_give_a_bias_computed_in_float32(dtype):
    bias = random_bias().to(dtype)
    assert bias((8, 8)).dtype == torch.float32
    with torch.autocast("cpu", dtype=dtype):
        again = bias((8, 8))
    assert torch.equal(again, bias((8, 8)))
    torch.testing.assert_close(
        matrix_of(again, (8, 8)).double(), expected_bias(bias, (8, 8), (8, 8)), rtol=0, atol=2e-5
    )


def test_mlp_runs_once_per_block_and_forward_in_training(monkeypatch):
    model, runs = backbone().train(), count_mlp_runs(monkeypatch)
    for forward, with_gradients in enumerate((True, False, False, True), start=1):
        with torch.set_grad_enabled(with_gradients):
            model(pictures(1, 3, 40, 52))
        assert len(runs) == 4 * forward


def test_mlp_runs_once_ever_in_eval(monkeypatch):
    model, runs = backbone().eval(), count_mlp_runs(monkeypatch)
    with torch.no_grad():
        for shape in ((1, 3, 40, 52), (1, 3, 40, 52), (2, 3, 64, 33)):
            model(pictures(*shape))
        assert runs == [(4, 4)] * 4
        model.set_window_size(3)
        model(pictures(1, 3, 40, 52))
        model.set_window_size(4)
        model(pictures(1, 3, 40, 52))
    assert runs == [(4, 4)] * 4 + [(3, 3)] * 4


def test_mlp_of_frozen_stages_runs_once_ever_in_training_too(monkeypatch):
    model, runs = backbone(frozen_stages=1).train(), count_mlp_runs(monkeypatch)
    for _ in range(3):
        model(pictures(1, 3, 40, 52))
    assert len(runs) == 2 + 3 * 2


def other_weights(bias: PositionBias) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in bias.state_dict().items()}


def optimizer_step(bias: PositionBias) -> None:
    for p in bias.parameters():
        p.grad = torch.ones_like(p)
    torch.optim.SGD(bias.parameters(), lr=0.1).step()


def fused_optimizer_step_alone(bias: PositionBias) -> None:
    """The same, with gradients from before the bias was cached."""
    for parameter in bias.parameters():
        parameter.grad = torch.ones_like(parameter)
    versions = [parameter._version for parameter in bias.parameters()]
    torch.optim.AdamW(bias.parameters(), lr=0.1, fused=True).step()
    assert versions == [parameter._version for parameter in bias.parameters()]


def fused_optimizer_step(bias: PositionBias) -> None:
    """Step without raising the version of a parameter; a forward with gradients precedes it."""
    bias((4, 4)).sum().backward()
    torch.optim.AdamW(bias.parameters(), lr=0.1, fused=True).step()


def load(bias: PositionBias) -> None:
    bias.load_state_dict(other_weights(bias))


def load_by_assignment(bias: PositionBias) -> None:
    bias.load_state_dict(other_weights(bias), assign=True)


def load_in_inference_mode(bias: PositionBias) -> None:
    with torch.inference_mode():
        load(bias)


def average_in_place(bias: PositionBias) -> None:
    """Change weights as an exponential moving average does."""
    with torch.no_grad():
        for p in bias.parameters():
            p.lerp_(torch.ones_like(p), 0.5)


def average_through_data(bias: PositionBias) -> None:
    """Change weights through ``data``, which raises no version: the mode must be set again."""
    for p in bias.parameters():
        p.data.lerp_(torch.ones_like(p), 0.5)
    bias.eval()


def replace_a_parameter(bias: PositionBias) -> None:
    bias[2].weight = nn.Parameter(bias[2].weight.detach() * 2)


CHANGES = [
    optimizer_step,
    fused_optimizer_step,
    fused_optimizer_step_alone,
    load,
    load_by_assignment,
    load_in_inference_mode,
    average_in_place,
    average_through_data,
    replace_a_parameter,
]


@pytest.mark.parametrize("change", CHANGES)
def test_changed_weights_are_seen_in_eval(change):
    bias = random_bias().eval()
    with torch.no_grad():
        before = bias((4, 4))
    change(bias)
    with torch.no_grad():
        after = bias((4, 4))
    assert (after - before).abs().max() > 0.01
    torch.testing.assert_close(
        matrix_of(after, (4, 4)).double(), expected_bias(bias, (4, 4), (8, 8)), rtol=0, atol=2e-5
    )


@pytest.mark.parametrize(
    "move",
    [
        lambda bias: bias.double(),
        lambda bias: bias.to(torch.bfloat16),
        lambda bias: bias.half(),
        lambda bias: bias.train(),
        lambda bias: bias.train().eval(),
        lambda bias: bias.eval(),
        lambda bias: copy.deepcopy(bias),
    ],
)
def test_table_is_computed_again_after_a_move_or_a_change_of_mode(monkeypatch, move):
    bias, runs = random_bias().eval(), count_mlp_runs(monkeypatch)
    with torch.no_grad():
        bias((4, 4)), bias((4, 4))
        assert len(runs) == 1
        bias = move(bias)
        after = bias((4, 4))
    assert len(runs) == 2
    assert after.dtype == torch.promote_types(bias[0].weight.dtype, torch.float32)
    torch.testing.assert_close(
        matrix_of(after, (4, 4)).double(), expected_bias(bias, (4, 4), (8, 8)), rtol=0, atol=2e-5
    )


def test_cache_is_not_used_where_gradients_are_wanted(monkeypatch):
    bias = random_bias().eval()
    with torch.no_grad():
        cached = bias((4, 4))
    wanted = bias((4, 4))
    assert wanted.requires_grad and torch.equal(wanted, cached)
    wanted.sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in bias.parameters())
    runs = count_mlp_runs(monkeypatch)
    bias.requires_grad_(False)  # nothing to learn, so cached again
    assert not bias((4, 4)).requires_grad and not bias((4, 4)).requires_grad
    assert len(runs) == 1


def test_inference_mode_then_gradients_then_training_works():
    model, x = backbone().eval(), pictures(1, 3, 37, 45)
    with torch.inference_mode():
        expected = model(x)
    with torch.no_grad():
        again = model(x)
    for name in expected:
        assert torch.equal(expected[name], again[name])
    for module in (model, model.train(), model.requires_grad_(False).eval().requires_grad_(True)):
        module.zero_grad()
        features = module(x)
        total(features).backward()
        assert all(p.grad.isfinite().all() for p in module.parameters())
        for name in expected:
            assert torch.equal(expected[name], features[name].detach())
    with torch.inference_mode():
        model.eval().requires_grad_(False)(x)
    x.requires_grad_()  # gradients of the image alone, through the bias just cached
    total(model(x)).backward()
    assert x.grad.any()


def test_a_bias_built_in_inference_mode_works():
    with torch.inference_mode():
        bias = random_bias().eval()
        assert torch.equal(bias((4, 4)), bias((4, 4)))


def test_state_dict_holds_no_tables():
    bias = random_bias().eval()
    with torch.no_grad():
        bias((8, 8))
    assert list(bias.state_dict()) == ["0.weight", "0.bias", "2.weight"]
    assert not list(bias.buffers())
    assert prod(bias.state_dict()["2.weight"].shape) == 3 * 512


def test_cache_of_indices_is_bounded():
    assert offset_index.cache_info().maxsize is not None
    with torch.inference_mode():
        assert not offset_index((5, 11), CPU).is_inference()


def test_replicas_of_a_data_parallel_model_do_not_share_the_cache():
    bias = random_bias().eval()
    with torch.no_grad():
        bias((4, 4))
        replica = bias._replicate_for_data_parallel()
        for own, copied in zip(bias, replica):
            copied = own._replicate_for_data_parallel()
            replica._modules[str(list(bias).index(own))] = copied
            for name, value in own._parameters.items():
                setattr(copied, name, None if value is None else value * 2)
        different = replica((4, 4))
        assert (different - bias((4, 4))).abs().max() > 0.01
