"""The oracle against small facts worked out by hand."""

import math

import torch
import torch.nn.functional as F
from oracle import (
    attention,
    axis_groups,
    concat_neighbors,
    log_spaced,
    may_attend,
    position_bias,
    randomize,
    reference_features,
)
from torch import Tensor, nn

DEPTHS, WINDOWS = (2, 2), ((4, 3), 2)


def block_shapes(prefix: str, channels: int, heads: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{prefix}.attn.logit_scale": (heads, 1, 1),
        f"{prefix}.attn.q_bias": (channels,),
        f"{prefix}.attn.v_bias": (channels,),
        f"{prefix}.attn.qkv.weight": (3 * channels, channels),
        f"{prefix}.attn.proj.weight": (channels, channels),
        f"{prefix}.attn.proj.bias": (channels,),
        f"{prefix}.attn.cpb_mlp.0.weight": (512, 2),
        f"{prefix}.attn.cpb_mlp.0.bias": (512,),
        f"{prefix}.attn.cpb_mlp.2.weight": (heads, 512),
        f"{prefix}.mlp.fc1.weight": (4 * channels, channels),
        f"{prefix}.mlp.fc1.bias": (4 * channels,),
        f"{prefix}.mlp.fc2.weight": (channels, 4 * channels),
        f"{prefix}.mlp.fc2.bias": (channels,),
        **norm_shapes(f"{prefix}.norm1", channels),
        **norm_shapes(f"{prefix}.norm2", channels),
    }


def norm_shapes(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}.weight": (channels,), f"{prefix}.bias": (channels,)}


def module_of(shapes: dict[str, tuple[int, ...]]) -> nn.Module:
    """Build a module with these parameters, all zero; dotted names are nested modules."""
    root = nn.Module()
    for name, shape in shapes.items():
        *path, leaf = name.split(".")
        module = root
        for part in path:
            if part not in dict(module.named_children()):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        module.register_parameter(leaf, nn.Parameter(torch.zeros(shape)))
    return root


def random_state(extra_norm: bool = False) -> dict[str, Tensor]:
    """Two stages of two blocks, 8 and 16 channels, 2 and 4 heads, both features requested."""
    shapes = {"patch_embed.proj.weight": (8, 3, 4, 4), "patch_embed.proj.bias": (8,)}
    shapes |= norm_shapes("patch_embed.norm", 8)
    shapes |= {"layers.1.downsample.reduction.weight": (16, 32)}
    shapes |= norm_shapes("layers.1.downsample.norm", 16)
    for i, channels in enumerate((8, 16)):
        shapes |= norm_shapes(f"norms.res{i + 2}", channels)
        for j in range(2):
            shapes |= block_shapes(f"layers.{i}.blocks.{j}", channels, heads=channels // 4)
        if extra_norm:
            shapes |= norm_shapes(f"layers.{i}.blocks.1.norm3", channels)
    return randomize(module_of(shapes), seed=0).state_dict()


def features(state: dict[str, Tensor], images: Tensor, **options) -> dict[str, Tensor]:
    return reference_features(
        state,
        images,
        depths=DEPTHS,
        window_sizes=WINDOWS,
        pretrained_window_sizes=WINDOWS,
        **options,
    )


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def attention_state(cpb_out: Tensor, logit_scale: float = 0.0) -> dict[str, Tensor]:
    """One head of two channels, q = k = v = x, proj = identity, B = 16 sigmoid(cpb_out relu(t))."""
    state = {
        "a.logit_scale": torch.full((1, 1, 1), logit_scale, dtype=torch.float64),
        "a.q_bias": torch.zeros(2),
        "a.v_bias": torch.zeros(2),
        "a.qkv.weight": torch.eye(2).repeat(3, 1),
        "a.proj.weight": torch.eye(2),
        "a.proj.bias": torch.zeros(2),
        "a.cpb_mlp.0.weight": torch.eye(2),
        "a.cpb_mlp.0.bias": torch.zeros(2),
        "a.cpb_mlp.2.weight": cpb_out,
    }
    return {name: value.double() for name, value in state.items()}


def close(actual: Tensor, expected: Tensor | list | float) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


def test_shifted_column_of_five_splits_two_and_three():
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
    ]
    assert may_attend((5, 1), (4, 4), shifted=True).int().tolist() == expected
    assert may_attend((1, 5), (4, 4), shifted=True).int().tolist() == expected


def test_unshifted_column_of_five_splits_four_and_one():
    assert axis_groups(5, 4, shifted=False) == [0, 0, 0, 0, 1]


def test_only_an_axis_larger_than_its_window_is_shifted():
    assert axis_groups(4, 4, shifted=True) == [0, 0, 0, 0]
    allowed = may_attend((3, 2), (2, 2), shifted=True)  # rows 0 | 1 2, columns together
    assert allowed[0].int().tolist() == [1, 1, 0, 0, 0, 0]
    assert allowed[2].int().tolist() == [0, 0, 1, 1, 1, 1]


def test_groups_equal_pad_then_roll_then_mask():
    for length in range(1, 20):
        for window in range(1, 9):
            shift = window // 2 if length > window else 0
            padded = math.ceil(length / window) * window
            rolled = [(row + shift) % padded for row in range(padded)]  # row at each position
            expected = torch.zeros(padded, padded, dtype=torch.bool)
            for a, row_a in enumerate(rolled):
                for b, row_b in enumerate(rolled):
                    same_side = (row_a < shift) == (row_b < shift)  # both wrapped, or neither
                    expected[row_a, row_b] = a // window == b // window and same_side
            allowed = may_attend((length, 1), (window, 1), shifted=True)
            assert torch.equal(allowed, expected[:length, :length]), (length, window)


def test_log_spaced_offsets_have_the_values_of_the_formula():
    def t(d: int, p: int) -> float:
        return log_spaced(torch.tensor(d).double(), p).item()

    assert t(0, 9) == 0
    assert math.isclose(t(1, 9), 1 / 3) and math.isclose(t(-7, 9), -1)  # log2(2) / 3, -log2(8) / 3
    assert math.isclose(t(15, 16), math.log2(9) / 3) and math.isclose(t(1, 1), math.log2(9) / 3)
    assert math.isclose(t(31, 16), 1.3773, abs_tol=5e-5)  # a window grown from 16 to 32


def test_position_bias_is_query_minus_key_rows_first_each_axis_with_its_own_window():
    state = attention_state(cpb_out=torch.tensor([[1.0, 2.0]]))  # logit relu(t_h) + 2 relu(t_w)
    offsets = torch.tensor([[7, 0], [-7, 0], [0, 14], [7, 14]]).double()
    bias = position_bias(state, "a", offsets, (9, 17))[:, 0]  # |t| = 1 at 7 of 9 and at 14 of 17
    close(bias, [16 / (1 + math.exp(-logit)) for logit in (1, 0, 2, 3)])


def test_merging_concatenates_down_the_column_first_and_pads_with_zeros():
    x = torch.arange(1.0, 7.0).reshape(2, 3, 1)
    assert concat_neighbors(x).tolist() == [[[1, 4, 2, 5], [3, 6, 0, 0]]]
    assert concat_neighbors(x.transpose(0, 1)).tolist() == [[[1, 2, 4, 5]], [[3, 0, 6, 0]]]


def attend(state: dict[str, Tensor], x: Tensor, allowed: Tensor) -> Tensor:
    """Attention over a column of tokens, pre-training window 9."""
    coords = torch.tensor([[row, 0] for row in range(len(x))]).double()
    return attention(state, "a", x.double(), coords, allowed, (9, 9))


def test_attention_of_two_tokens_equals_the_softmax_worked_out_by_hand():
    x = torch.tensor([[3.0, 0.0], [0.0, 5.0]])  # cosines 1 and 0, whatever the norms
    everyone = torch.ones(2, 2, dtype=torch.bool)
    state = attention_state(torch.zeros(1, 2), logit_scale=math.log(2))
    keep = math.exp(2) / (math.exp(2) + 1)  # logits 2 and 0; the equal bias cancels
    close(attend(state, x, everyone), [[3 * keep, 5 * (1 - keep)], [3 * (1 - keep), 5 * keep]])
    # The key in row 0 is at offset +1 from the query in row 1, t = 1 / 3; the reverse is -1 / 3.
    state = attention_state(torch.tensor([[3.0, 0.0]]), logit_scale=math.log(2))
    down = 16 / (1 + math.exp(-1)) - 8  # bias of row 0 over row 1, for the query in row 1
    own = math.exp(2) / (math.exp(2) + math.exp(down))
    close(attend(state, x, everyone), [[3 * keep, 5 * (1 - keep)], [3 * (1 - own), 5 * own]])


def test_attention_clamps_its_scale_at_100():
    x = torch.tensor([[1.0, 0.0], [0.999, math.sqrt(1 - 0.999**2)]], dtype=torch.float64)
    everyone = torch.ones(2, 2, dtype=torch.bool)
    at, above = (attention_state(torch.zeros(1, 2), math.log(scale)) for scale in (100, 1000))
    close(attend(above, x, everyone), attend(at, x, everyone))
    weight = attend(at, x, everyone)[0, 1] / x[1, 1]  # of key 1, for query 0
    close(weight, 1 / (1 + math.exp(100 * 0.001)))


def test_attention_without_similarity_or_bias_averages_the_values_of_the_group():
    state = attention_state(torch.zeros(1, 2))
    state["a.qkv.weight"][:4] = 0  # q = k = 0: cosine 0, not NaN
    state["a.v_bias"] += 10
    x = torch.arange(10.0).reshape(5, 2)
    out = attend(state, x, may_attend((5, 1), (4, 4), shifted=True))
    close(out, [[11, 12]] * 2 + [[16, 17]] * 3)


def test_features_have_ceil_sizes_and_normalized_channels():
    state = random_state()
    for name in ("norms.res2", "norms.res3"):
        state[f"{name}.weight"].fill_(1)
        state[f"{name}.bias"].fill_(0)
    out = features(state, images(1, 3, 21, 33))
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "res2": (1, 8, 6, 9),
        "res3": (1, 16, 3, 5),
    }
    for value in out.values():
        close(value.mean(dim=1), torch.zeros_like(value[:, 0]))
        assert value.dtype == torch.float64 and value.std(dim=(2, 3)).min() > 0.05


def test_identity_blocks_leave_the_patch_embedding():
    state = random_state()
    for name in state:
        if ".norm1." in name or ".norm2." in name:
            state[name].zero_()
    x = images(2, 3, 8, 12)
    double = {name: value.double() for name, value in state.items()}
    proj = F.conv2d(
        x.double(), double["patch_embed.proj.weight"], double["patch_embed.proj.bias"], 4
    )
    for norm in ("patch_embed.norm", "norms.res2"):
        weight, bias = double[f"{norm}.weight"], double[f"{norm}.bias"]
        proj = F.layer_norm(proj.movedim(1, -1), (8,), weight, bias, 1e-5).movedim(-1, 1)
    close(features(state, x)["res2"], proj)


def test_features_of_an_image_do_not_depend_on_its_batch():
    state, batch, sizes = random_state(), images(2, 3, 24, 20), [(24, 9), (13, 20)]
    together = features(state, batch, image_sizes=sizes)
    for b, (h, w) in enumerate(sizes):
        for name, alone in features(state, batch[b : b + 1, :, :h, :w]).items():
            rows, columns = alone.shape[2:]
            assert torch.equal(together[name][b, :, :rows, :columns], alone[0])
            inside = torch.zeros(together[name].shape[2:], dtype=torch.bool)
            inside[:rows, :columns] = True
            assert together[name][b, :, ~inside].eq(0).all() and alone.ne(0).all()


def test_a_token_reaches_exactly_the_groups_of_its_two_blocks():
    state, x = (
        random_state(),
        images(1, 3, 4 * 9, 4),
    )  # 9 tokens down: 0123 4567 8, then 01 2345 678
    changed = x.clone()
    changed[:, :, 4 * 8 :] += 1  # token 8
    moved = (features(state, x)["res2"] != features(state, changed)["res2"]).any(dim=1).flatten()
    assert moved.tolist() == [False] * 6 + [True] * 3


def test_every_parameter_reaches_the_features():
    state, x = random_state(extra_norm=True), images(1, 3, 20, 16)
    before = features(state, x, extra_norm_every=2)["res3"]
    for name in [name for name in state if not name.startswith("norms.res2")]:
        # a scale above its clamp has no effect upwards, so move downwards
        changed = state | {name: state[name] - 1}
        after = features(changed, x, extra_norm_every=2)["res3"]
        assert not torch.equal(before, after), name


def test_randomize_gives_the_same_telling_values_each_time():
    state, again = random_state(), random_state()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert all(value.ne(0).all() for value in state.values())
    scales = state["layers.0.blocks.0.attn.logit_scale"]
    assert scales.min() < math.log(100) < scales.max()
    double = {name: value.double() for name, value in state.items()}
    offsets = torch.cartesian_prod(torch.arange(-7, 8), torch.arange(-7, 8)).double()
    bias = position_bias(double, "layers.0.blocks.0.attn", offsets, (8, 8))
    assert bias.std(dim=0).min() > 1.5 and bias.min() > 0 and bias.max() < 16
