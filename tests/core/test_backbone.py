"""The backbone as a whole: equality with the oracle, invariances, options, refusals."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil, log

import pytest
import torch
from models import (
    FEATURES,
    FOUR_STAGES,
    TWO_STAGES,
    backbone,
    differences,
    gradients,
    largest_difference,
    oracle_features,
    padded,
    pictures,
    total,
)
from torch import Tensor

from swinv2_backbone import VARIANTS, SwinV2, build_backbone
from swinv2_backbone.block import SwinV2Block
from swinv2_backbone.layers import DropPath
from swinv2_backbone.packing import Size
from swinv2_backbone.windows import Partition

CPU = torch.device("cpu")
OUT_FEATURES = [names for n in range(1, 5) for names in itertools.combinations(FEATURES, n)]
# Bounds of largest_difference to the oracle; measured 9e-14 and 1.6e-4.  The random weights make
# logits of up to 116, for which float32 is imprecise: the oracle in float32 is off by 1.9e-4.
FLOAT64, FLOAT32 = 1e-11, 5e-4


def compare_with_oracle(shape: dict, images: Tensor, image_sizes: list[Size] | None = None) -> None:
    """Compare a model of ``shape`` with the oracle, in float64 and float32."""
    stages = len(shape["depths"])
    windows, pretrained = (
        [given] * stages if isinstance(given, int) else given
        for given in (
            shape["window_size"],
            shape.get("pretrained_window_sizes", shape["window_size"]),
        )
    )
    model = backbone(shape).eval()
    expected = oracle_features(
        model,
        images,
        window_sizes=windows,
        pretrained_window_sizes=pretrained,
        image_sizes=image_sizes,
        extra_norm_every=shape.get("extra_norm_every", 0),
        square_small_maps=shape.get("small_map_rule") == "square",
    )
    with torch.no_grad():
        assert largest_difference(model(images, image_sizes), expected) < FLOAT32
        actual = model.double()(images.double(), image_sizes)
    assert largest_difference(actual, expected) < FLOAT64


@pytest.mark.parametrize("size", [(45, 70), (33, 9), (1, 64), (64, 1), (1, 1), (15, 13), (64, 32)])
def test_four_stages_equal_the_oracle(size):
    compare_with_oracle(FOUR_STAGES, pictures(1, 3, *size))


@pytest.mark.parametrize("size", [(45, 70), (33, 9), (1, 64), (64, 1), (1, 1), (64, 64)])
@pytest.mark.parametrize(
    "windows",
    [
        {"window_size": ((4, 7), (3, 2))},
        {"window_size": (5, 2)},
        {"window_size": (1, (1, 3))},
        {"window_size": 16},
        {"window_size": ((4, 7), 6), "pretrained_window_sizes": ((8, 5), (1, 3))},
        {"window_size": 3, "extra_norm_every": 2},
        {"window_size": 3, "extra_norm_every": 1},
    ],
    ids=str,
)
def test_windows_of_every_form_equal_the_oracle(windows, size):
    compare_with_oracle(TWO_STAGES | windows, pictures(1, 3, *size))


@pytest.mark.parametrize(
    "shape", [FOUR_STAGES, TWO_STAGES | {"window_size": ((4, 7), (3, 2))}], ids=["four", "two"]
)
@pytest.mark.parametrize(
    "sizes",
    [[(45, 50), (16, 9), (1, 33)], [(32, 32), (32, 32)], [(1, 1), (7, 50), (45, 1), (45, 1)]],
    ids=str,
)
def test_a_batch_with_image_sizes_equals_the_oracle(shape, sizes):
    images = [pictures(3, *size, seed=i) for i, size in enumerate(sizes)]
    compare_with_oracle(shape, padded(images, 45, 50), sizes)


@pytest.mark.parametrize("kernel", ["reference", "tiles"])
def test_microsofts_rule_for_small_maps_equals_the_oracle(kernel):
    """Maps of 12x23 to 2x3, 6x4 to 1x1 and 4x16 to 1x2 tokens, in one batch."""
    shape = FOUR_STAGES | {"small_map_rule": "square", "kernel": kernel}
    sizes = [(45, 90), (22, 13), (16, 61)]
    images = padded([pictures(3, *size, seed=i) for i, size in enumerate(sizes)], 48, 90)
    compare_with_oracle(shape, images, sizes)


def test_the_rule_for_small_maps_matters_to_images_that_are_not_square_alone():
    rules = [backbone(FOUR_STAGES, small_map_rule=rule).eval() for rule in ("per_axis", "square")]
    with torch.no_grad():
        square, wide = ([model(pictures(1, 3, 64, w)) for model in rules] for w in (64, 128))
    assert largest_difference(*square) < 1e-6
    off = differences(*wide)
    assert off["res3"] < 1e-6  # maps of 16x32 and 8x16 have more than one window along each axis
    assert off["res4"] > 1e-2


def test_other_numbers_of_channels_and_blocks_equal_the_oracle():
    shape = TWO_STAGES | {"depths": (1, 3, 1), "num_heads": (1, 1, 2), "in_channels": 5}
    compare_with_oracle(shape, pictures(1, 5, 37, 50))


def test_set_window_size_equals_the_oracle_with_the_old_pretrained_windows():
    model, images = backbone().double(), pictures(1, 3, 45, 70).double()
    model.set_window_size(((5, 9), 3))
    expected = oracle_features(
        model, images, window_sizes=((5, 9), 3), pretrained_window_sizes=(4, 4)
    )
    assert largest_difference(model(images), expected) < FLOAT64


def model_for_invariance(dtype: torch.dtype) -> tuple[SwinV2, float]:
    """Return a model, and a bound on the change of its features under irrelevant input changes.

    In float32 the logit scale is that of a new model, 10: with a scale of 100, as set by
    `randomize`, 1e-6 in a token becomes 1e-4 in a logit (measured: 3.2e-5 in a feature).  In
    float64 the scale is 100.  Measured with these: 4.3e-6 and 4e-14.
    """
    model = backbone(FOUR_STAGES).to(dtype).eval()
    if dtype == torch.float32:
        for stage in model.layers:
            for block in stage.blocks:
                torch.nn.init.constant_(block.attn.logit_scale, log(10))
    return model, 1e-5 if dtype == torch.float32 else 1e-11


@torch.no_grad()
def check_features_as_alone(images: list[Tensor], batch: Tensor, dtype: torch.dtype) -> None:
    """Check that every image of a batch has the same features as alone, and zeros outside."""
    model, bound = model_for_invariance(dtype)
    together = model(batch.to(dtype), [tuple(image.shape[1:]) for image in images])
    for index, image in enumerate(images):
        for name, alone in model(image[None].to(dtype)).items():
            height, width = alone.shape[2:]
            cropped = together[name][index, :, :height, :width]
            torch.testing.assert_close(cropped, alone[0], rtol=0, atol=bound)
            assert together[name][index].count_nonzero() == cropped.count_nonzero()
    for name, stride in model.strides.items():
        assert together[name].shape[2:] == tuple(ceil(n / stride) for n in batch.shape[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("canvas", [(45, 70), (46, 71), (48, 72), (64, 96), (45, 200)], ids=str)
def test_features_do_not_depend_on_padding(canvas, dtype):
    image = pictures(3, 45, 70)
    check_features_as_alone([image], padded([image], *canvas), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_padding_that_is_not_zero_changes_only_the_patches_it_shares_with_the_image(dtype):
    image = pictures(3, 44, 68)  # whole patches
    noisy = padded([image], 64, 96)
    noisy[:, :, 44:], noisy[:, :, :, 68:] = 1e3, -1e3
    check_features_as_alone([image], noisy, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "sizes", [[(45, 70), (96, 40)], [(9, 70), (33, 33), (120, 5)], [(64, 64), (64, 64)]], ids=str
)
def test_features_do_not_depend_on_the_batch(sizes, dtype):
    images = [pictures(3, *size, seed=i) for i, size in enumerate(sizes)]
    check_features_as_alone(images, padded(images, 120, 72), dtype)


def test_an_image_has_no_influence_on_its_neighbors_gradient():
    model, images = backbone().double(), pictures(2, 3, 33, 40).double().requires_grad_()
    features = model(images, [(33, 21), (20, 40)])
    sum(value[0].sum() for value in features.values()).backward()
    assert images.grad[0, :, :, :21].ne(0).all()
    assert not images.grad[1].any() and not images.grad[0, :, :, 24:].any()


@pytest.mark.parametrize("out_features", OUT_FEATURES, ids="-".join)
def test_every_parameter_is_used_whatever_the_outputs(out_features):
    model = backbone(FOUR_STAGES, window_size=3, out_features=out_features)
    features = model(pictures(1, 3, 70, 100))
    assert tuple(features) == out_features
    total(features).backward()
    for name, gradient in gradients(model).items():
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), name


def test_outputs_do_not_depend_on_which_others_are_wanted():
    images = pictures(1, 3, 45, 70)
    every = backbone(FOUR_STAGES)(images)
    for out_features in (("res3",), ("res5", "res2")):
        model = backbone(FOUR_STAGES, out_features=out_features)
        assert len(model.layers) == FEATURES.index(max(out_features)) + 1
        features = model(images)
        assert features.keys() == set(out_features)
        for name, feature in features.items():
            assert torch.equal(feature, every[name])


@contextmanager
def counted_bytes() -> Iterator[list[int]]:
    """Count the bytes of every tensor that is saved for the backward in this context."""
    kept = []

    def keep(x: Tensor) -> Tensor:
        kept.append(x.numel() * x.element_size())
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield kept


@pytest.mark.parametrize("kernel", ["reference", "tiles"])
@pytest.mark.parametrize("drop_path_rate", [0.0, 0.5])
def test_activation_checkpointing_changes_neither_outputs_nor_gradients(drop_path_rate, kernel):
    images, results, kept = pictures(3, 3, 45, 40), [], []
    for checkpointing in (False, True):
        options = {"drop_path_rate": drop_path_rate, "activation_checkpointing": checkpointing}
        model = backbone(kernel=kernel, **options)
        torch.manual_seed(3)
        with counted_bytes() as own:
            features = model(images, [(45, 40), (20, 33), (45, 1)])
        kept.append(sum(own))
        total(features).backward()
        results.append((features, gradients(model)))
    tokens = [12 * 10 + 5 * 9 + 12, 6 * 5 + 3 * 5 + 6]  # of the two stages
    assert kept[0] - kept[1] >= 2 * 10 * 4 * (tokens[0] * 16 + tokens[1] * 32)
    (plain, plain_gradients), (checkpointed, checkpointed_gradients) = results
    for name in plain:
        assert torch.equal(plain[name], checkpointed[name])
    for name, gradient in plain_gradients.items():
        assert torch.equal(gradient, checkpointed_gradients[name]), name


def test_activation_checkpointing_is_for_training_alone():
    images, kept = pictures(1, 3, 33, 40), []
    for checkpointing in (False, True):
        with counted_bytes() as own:
            backbone(activation_checkpointing=checkpointing).eval()(images)
        kept.append(sum(own))
    assert kept[0] == kept[1]


@pytest.mark.parametrize("frozen", range(-1, 5))
def test_frozen_stages_get_no_gradient_and_stay_in_eval_mode(frozen):
    model = backbone(FOUR_STAGES, frozen_stages=frozen, drop_path_rate=0.3)
    parts = ["patch_embed.", *(f"layers.{stage}." for stage in range(4))][: frozen + 1]
    assert model.train() is model and model.training
    assert model.eval() is model and not any(m.training for m in model.modules())
    model.train()
    for name, module in model.named_modules():
        assert module.training == (not f"{name}.".startswith(tuple(parts))), name
    total(model(pictures(2, 3, 70, 100))).backward()
    for name, parameter in model.named_parameters():
        is_frozen = name.startswith(tuple(parts))
        assert parameter.requires_grad == (not is_frozen), name
        assert (parameter.grad is None) == is_frozen, name


def test_frozen_stages_beyond_the_last_output_freeze_what_there_is():
    model = backbone(FOUR_STAGES, out_features=("res2", "res3"), frozen_stages=4)
    assert {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "norms"
    }


def test_drop_path_of_frozen_stages_is_off():
    model = backbone(drop_path_rate=0.9, frozen_stages=2).train()
    images = pictures(4, 3, 33, 40)
    with torch.no_grad():
        assert largest_difference(model(images), model.eval()(images)) == 0


def kept_branches(block: SwinV2Block, x: Tensor, partition: Partition) -> tuple[Tensor, ...]:
    """Return the block's output if neither, the first, the second, or both branches are kept.

    At a rate of 0.5, a kept branch is multiplied by 2.
    """
    first = x + 2 * block.norm1(block.attn(x, partition))
    return x, first, x + 2 * block.norm2(block.mlp(x)), first + 2 * block.norm2(block.mlp(first))


def test_a_dropped_branch_contributes_exactly_nothing_and_is_dropped_by_image():
    model = backbone(depths=(1, 2), drop_path_rate=0.5)
    block = model.layers[1].blocks[1].double()
    assert block.drop_path.rate == 0.5
    assert block.norm1.bias.ne(0).all() and block.norm2.bias.ne(0).all()
    sizes = ((3, 5), (4, 4), (1, 1), (2, 7)) * 8
    partition = Partition(sizes, (4, 4), True)
    tokens = [h * w for h, w in sizes]
    x = pictures(sum(tokens), 32).double()
    torch.manual_seed(0)
    with torch.no_grad():
        expected = [own.split(tokens) for own in kept_branches(block, x, partition)]
        actual = block(x, partition).split(tokens)
    seen = []
    for image, own in enumerate(actual):
        same = [torch.allclose(own, one[image], rtol=0, atol=1e-5) for one in expected]
        assert sum(same) == 1
        seen.append(same.index(True))
        if seen[-1] == 0:
            assert torch.equal(own, expected[0][image])  # exactly nothing
    assert set(seen) == {0, 1, 2, 3}


def test_drop_path_is_by_image_and_keeps_the_expectation():
    torch.manual_seed(0)
    drop, images = DropPath(0.3).train(), 20_000
    sizes = tuple((1, image % 3 + 1) for image in range(images))
    tokens = [width for _, width in sizes]
    kept = drop(torch.ones(sum(tokens), 2), sizes)
    of_image = [own.unique().tolist() for own in kept.split(tokens)]
    assert all(len(values) == 1 for values in of_image)
    values = torch.tensor(of_image)
    assert set(values.flatten().tolist()) == {0.0, torch.tensor(1 / 0.7).item()}
    deviation = (0.3 / 0.7 / images) ** 0.5  # of the mean
    assert abs(values.mean().item() - 1) < 4 * deviation
    assert torch.equal(drop.eval()(kept, sizes), kept)


def test_drop_path_rate_rises_linearly_over_all_blocks():
    for out_features in (FEATURES, ("res3",)):
        model = backbone(
            FOUR_STAGES, depths=(2, 1, 3, 2), out_features=out_features, drop_path_rate=0.7
        )
        rates = [block.drop_path.rate for stage in model.layers for block in stage.blocks]
        assert len(rates) == (8 if out_features == FEATURES else 3)
        assert rates == pytest.approx([0.1 * block for block in range(len(rates))])


def test_drop_path_is_off_in_eval_and_by_default():
    images = pictures(4, 3, 33, 40)
    plain, dropping = backbone(), backbone(drop_path_rate=0.9)
    with torch.no_grad():
        assert largest_difference(plain(images), plain.eval()(images)) == 0
        assert largest_difference(dropping(images), plain(images)) > 0.01
        assert largest_difference(dropping.eval()(images), plain(images)) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (4, 4), (5, 3), (32, 33), (63, 65), (97, 31)])
def test_outputs_have_their_names_channels_strides_and_sizes(size):
    model = backbone(FOUR_STAGES, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1))
    assert model.channels == {"res2": 8, "res3": 16, "res4": 32, "res5": 64}
    assert model.strides == {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
    with torch.no_grad():
        features = model(pictures(2, 3, *size))
    assert tuple(features) == FEATURES == model.out_features
    for name, stride in model.strides.items():
        assert features[name].shape == (2, model.channels[name], *(ceil(n / stride) for n in size))
        assert features[name].is_contiguous(memory_format=torch.channels_last)
        assert features[name].isfinite().all()


def test_output_norms_end_the_features():
    model = SwinV2(**FOUR_STAGES).eval()  # new, so with norms of weight 1 and bias 0
    for feature in model(pictures(1, 3, 64, 96)).values():
        assert feature.mean(dim=1).abs().max() < 1e-5
        assert (feature.var(dim=1, correction=0) - 1).abs().max() < 1e-2


def test_a_fresh_block_is_the_identity():
    torch.manual_seed(0)
    fresh = SwinV2(**TWO_STAGES)
    x, partition = pictures(35, 16), Partition(((5, 7),), (4, 4), True)
    assert torch.equal(fresh.layers[0].blocks[1](x, partition), x)
    weight = fresh.layers[1].downsample.reduction.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    scale = fresh.layers[0].blocks[0].attn.logit_scale
    assert torch.equal(scale, torch.full((2, 1, 1), 10.0).log())


@pytest.mark.parametrize(
    "changes, words",
    [
        (dict(window_size=0), ["window_size", "0"]),
        (dict(window_size=(4, 4, -3, 4)), ["window_size", "-3"]),
        (dict(window_size=(4, (4, 0), 4, 4)), ["window_size", "(4, 0)"]),
        (dict(window_size=(4, (4, 5, 6), 4, 4)), ["window_size", "(4, 5, 6)"]),
        (dict(window_size=(4, 4, 4)), ["window_size", "(4, 4, 4)", "4"]),
        (dict(window_size=7.5), ["window_size", "7.5"]),
        (dict(window_size=(8, 8, None, 8)), ["window_size", "None"]),
        (dict(pretrained_window_sizes=(9, 9)), ["pretrained_window_sizes", "(9, 9)", "4"]),
        (dict(pretrained_window_sizes=-1), ["pretrained_window_sizes", "-1"]),
        (dict(small_map_rule="both"), ["small_map_rule", "per_axis, square", "'both'"]),
        (
            dict(small_map_rule="square", window_size=((4, 4), (4, 4), (4, 6), (4, 4))),
            ["small_map_rule 'square'", "MODEL.SWINV2.SMALL_MAP_RULE", "(4, 6)", "'per_axis'"],
        ),
        (dict(out_features=("res2", "res6")), ["out_features", "res6", "res2, res3, res4, res5"]),
        (dict(out_features=()), ["out_features", "()"]),
        (
            dict(depths=(2, 2), num_heads=(2, 4), out_features=("res4",)),
            ["out_features", "res4", "res2, res3"],
        ),
        (dict(drop_path_rate=1.0), ["drop_path_rate", "1.0"]),
        (dict(drop_path_rate=-0.1), ["drop_path_rate", "-0.1"]),
        (dict(drop_path_rate=float("nan")), ["drop_path_rate", "nan"]),
        (dict(frozen_stages=5), ["frozen_stages", "5", "-1 .. 4"]),
        (dict(frozen_stages=-2), ["frozen_stages", "-2"]),
        (dict(num_heads=(3, 2, 4, 8)), ["num_heads", "(3, 2, 4, 8)", "(16, 32, 64, 128)"]),
        (dict(num_heads=(0, 2, 4, 8)), ["num_heads", "(0, 2, 4, 8)"]),
        (dict(num_heads=(2, 2, 4)), ["num_heads", "(2, 2, 4)"]),
        (dict(depths=(2, 0, 2, 2)), ["depths", "(2, 0, 2, 2)"]),
        (dict(depths=()), ["depths", "()"]),
        (dict(depths=(1,) * 5, num_heads=(1,) * 5), ["depths", "(1, 1, 1, 1, 1)"]),
    ],
    ids=str,
)
def test_an_impossible_model_is_refused_with_the_value(changes, words):
    with pytest.raises(ValueError) as error:
        SwinV2(**FOUR_STAGES | changes)
    for word in words:
        assert word in str(error.value)


def test_an_unknown_variant_is_refused_with_the_names_of_all():
    with pytest.raises(ValueError) as error:
        build_backbone("swinv2_tiny_window7_224")
    for name in ("swinv2_tiny_window7_224", *VARIANTS):
        assert name in str(error.value)


@pytest.mark.parametrize(
    "windows, words", [(0, ["0"]), ((4, 4, 4), ["(4, 4, 4)", "2"]), (((4, -1), 4), ["(4, -1)"])]
)
def test_an_impossible_new_window_is_refused_and_changes_nothing(windows, words):
    model = SwinV2(**TWO_STAGES)
    with pytest.raises(ValueError) as error:
        model.set_window_size(windows)
    for word in ("window_size", *words):
        assert word in str(error.value)
    assert model.window_sizes == ((4, 4), (4, 4))


def test_a_new_window_that_is_not_square_is_refused_where_small_maps_have_square_ones():
    model = SwinV2(**TWO_STAGES, small_map_rule="square")
    with pytest.raises(ValueError, match=r"small_map_rule 'square' .* needs square windows"):
        model.set_window_size(((4, 8), 4))
    assert model.window_sizes == ((4, 4), (4, 4))


@pytest.mark.parametrize(
    "images, image_sizes, words",
    [
        (torch.zeros(1, 4, 32, 32), None, ["(1, 4, 32, 32)", "3"]),
        (torch.zeros(3, 32, 32), None, ["(3, 32, 32)"]),
        (torch.zeros(0, 3, 32, 32), None, ["(0, 3, 32, 32)"]),
        (torch.zeros(1, 3, 0, 32), None, ["(1, 3, 0, 32)"]),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), None, ["uint8"]),
        (torch.zeros(1, 3, 32, 32, dtype=torch.int64), None, ["int64"]),
        (torch.zeros(2, 3, 32, 32), [(32, 32)], ["1 image_sizes", "2 images"]),
        (torch.zeros(2, 3, 32, 32), [], ["0 image_sizes", "2 images"]),
        (torch.zeros(2, 3, 30, 32), [(30, 32), (31, 32)], ["(31, 32)", "(30, 32)"]),
        (torch.zeros(2, 3, 30, 32), [(30, 33), (30, 32)], ["(30, 33)", "(30, 32)"]),
        (torch.zeros(1, 3, 30, 32), [(0, 32)], ["(0, 32)"]),
        (torch.zeros(1, 3, 30, 32), [(30, -2)], ["(30, -2)"]),
    ],
    ids=lambda value: "" if isinstance(value, Tensor) else str(value),
)
def test_impossible_images_are_refused_with_the_value(images, image_sizes, words):
    with pytest.raises(ValueError) as error:
        SwinV2(**TWO_STAGES)(images, image_sizes)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_computes_the_same_and_shares_nothing(duplicate):
    model, images = backbone(drop_path_rate=0.1, frozen_stages=1), pictures(1, 3, 45, 40)
    with torch.no_grad():
        expected = model.eval()(images)  # with a filled cache
        twin = duplicate(model)
        assert largest_difference(twin(images), expected) == 0
        for parameter in twin.parameters():
            parameter.add_(1)
        assert largest_difference(model(images), expected) == 0
        assert largest_difference(twin(images), expected) > 0.01
    twin.train()
    assert not twin.layers[0].training and twin.layers[1].training
    assert (twin.channels, twin.strides) == (model.channels, model.strides)


def test_a_window_changes_the_features_from_its_stage_on():
    model, images = backbone(FOUR_STAGES).eval(), pictures(1, 3, 150, 130)
    with torch.no_grad():
        before = model(images)
        model.set_window_size((4, 4, 3, 4))
        after = model(images)
    for name in ("res2", "res3"):
        assert torch.equal(before[name], after[name])
    for name in ("res4", "res5"):
        assert (before[name] - after[name]).abs().max() > 0.01


def test_a_window_larger_than_every_map_is_as_large_as_the_map():
    model, images = backbone(window_size=16).eval(), pictures(1, 3, 45, 52)  # maps 12x13, 6x7
    with torch.no_grad():
        before = model(images)
        model.set_window_size(((12, 13), (40, 7)))
        assert largest_difference(model(images), before) == 0
        model.set_window_size(((11, 13), (40, 7)))
        assert largest_difference(model(images), before) > 0.01
