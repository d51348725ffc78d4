"""Window layouts, compared with the oracle's pairs of tokens that attend to each other."""

import itertools
from math import ceil, prod

import pytest
import torch
from models import counted
from oracle import may_attend
from torch import Tensor

from swinv2_backbone.packing import Size, tokens_per_image
from swinv2_backbone.windows import Partition, WindowLayout, WindowPermutation, window_layout

CPU = torch.device("cpu")
SIDES = range(1, 10)
WINDOWS = list(itertools.product(range(1, 6), repeat=2))
BATCHES = [((5, 7),), ((1, 1),), ((8, 4), (8, 4)), ((3, 9), (7, 2), (1, 1)), ((6, 1), (1, 6))]


def layout_of(
    sizes: tuple[Size, ...], window: Size, shifted: bool, square_small_maps: bool = False
) -> WindowLayout:
    return window_layout(Partition(sizes, window, shifted, square_small_maps), CPU)


def allowed_pairs(layout: WindowLayout) -> Tensor:
    """Return the pairs of tokens that attend to each other in the layout, (T, T) bool."""
    slots = layout.permutation.slot_of_token
    window, place = slots // prod(layout.window), slots % prod(layout.window)
    allowed = window[:, None] == window[None, :]
    if (masked := layout.attn_mask()) is not None:
        allowed &= ~masked[window[:, None], place[:, None], place[None, :]]
    return allowed


def place_in_window(layout: WindowLayout) -> Tensor:
    """Return row and column of every token within its window, (T, 2)."""
    place = layout.permutation.slot_of_token % prod(layout.window)
    return torch.stack((place // layout.window[1], place % layout.window[1]), dim=1)


def window_permutation() -> WindowPermutation:
    return layout_of(((3, 5), (2, 2)), (2, 4), True).permutation


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", [(1, 1), (2, 3), (4, 4), (8, 5)])
@pytest.mark.parametrize("sizes", BATCHES)
def test_gathering_is_a_permutation_with_empty_slots_of_zero(sizes, window, shifted):
    layout = layout_of(sizes, window, shifted)
    tokens = counted(sum(map(prod, sizes)), 2)
    windows = layout.to_windows(tokens)
    assert windows.shape[1:] == (prod(layout.window), 2)
    assert torch.equal(layout.to_tokens(windows), tokens)
    slots = windows.flatten(0, 1)
    taken = slots[(slots != 0).any(dim=1)]
    assert torch.equal(taken[taken[:, 0].argsort()], tokens)  # each token once, the rest zero
    if layout.permutation.empty is None:
        assert len(taken) == len(slots)
    else:
        assert torch.equal(layout.permutation.empty[:, 0], (slots == 0).all(dim=1))


def test_the_values_of_empty_slots_are_dropped():
    permutation = window_permutation()
    slots = permutation.gather(counted(19, 2))
    noisy = torch.where(permutation.empty, 1e9, slots)
    assert permutation.empty.any() and torch.equal(permutation.scatter(noisy), counted(19, 2))


@pytest.mark.parametrize("way", ["gather", "scatter"])
def test_gradient_of_a_permutation_equals_that_of_plain_indexing(way):
    permutation = window_permutation()
    empty = permutation.empty[:, 0]
    if way == "gather":
        move, rows = permutation.gather, len(permutation.slot_of_token)
        index = torch.where(empty, rows, permutation.token_of_slot)  # row `rows` is zero
    else:
        move, rows, index = permutation.scatter, len(empty), permutation.slot_of_token
    ours, plain = (counted(rows, 3).requires_grad_() for _ in range(2))
    expected = torch.cat((plain, plain.new_zeros(1, 3)))[index]
    weights = counted(len(index), 3)
    (move(ours) * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(move(ours), expected)
    assert torch.equal(ours.grad, plain.grad)


def test_first_and_second_gradients_of_permutations_pass_gradcheck():
    permutation = window_permutation()
    for move, rows in (
        (permutation.gather, len(permutation.slot_of_token)),
        (permutation.scatter, len(permutation.token_of_slot)),
    ):
        x = counted(rows, 2).requires_grad_()
        assert torch.autograd.gradcheck(move, x)
        assert torch.autograd.gradgradcheck(lambda x, move=move: move(x) ** 3, x)


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", WINDOWS)
def test_allowed_pairs_equal_the_oracle_on_every_small_map(window, shifted):
    for size in itertools.product(SIDES, SIDES):
        layout = layout_of((size,), window, shifted)
        assert layout.window == (min(window[0], size[0]), min(window[1], size[1]))
        assert_is_of_the_oracle(layout, size, may_attend(size, window, shifted))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", range(1, 6))
def test_small_maps_have_square_windows_where_asked_for(window, shifted):
    for size in itertools.product(SIDES, SIDES):
        layout = layout_of((size,), (window, window), shifted, True)
        assert layout.window == (min(window, *size),) * 2  # no slots that are always empty
        allowed = may_attend(size, (window, window), shifted, True)
        assert_is_of_the_oracle(layout, size, allowed)


def assert_is_of_the_oracle(layout: WindowLayout, size: Size, expected: Tensor) -> None:
    allowed = allowed_pairs(layout)
    assert torch.equal(allowed, expected), (size, layout.window)
    # Pairs that attend have the same offset in the window as in the map, as the bias requires.
    own = torch.cartesian_prod(*(torch.arange(length) for length in size))
    place = place_in_window(layout)
    wrong = (own[:, None] - own[None] != place[:, None] - place[None]).any(dim=-1)
    assert not (wrong & allowed).any(), (size, layout.window)


@pytest.mark.parametrize("window", WINDOWS)
def test_every_slot_has_a_real_key(window):
    for height, width, shifted in itertools.product(SIDES, SIDES, (False, True)):
        layout = layout_of(((height, width), (2, 5)), window, shifted)
        if (masked := layout.attn_mask()) is None:
            continue
        assert not masked.all(dim=-1).any(), (height, width)
        keys = layout.permutation.empty
        if keys is not None:  # every empty slot is masked as a key
            empty = keys.view(len(masked), 1, -1).expand_as(masked)
            assert masked[empty].all(), (height, width)


def test_nothing_is_masked_where_whole_windows_fill_the_map():
    assert layout_of(((8, 12),), (4, 4), False).attn_mask() is None
    assert layout_of(((4, 3), (4, 3)), (4, 4), True).attn_mask() is None  # fits in one window
    assert layout_of(((8, 12),), (4, 4), True).attn_mask() is not None
    assert layout_of(((8, 11),), (4, 4), False).attn_mask() is not None


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("window", [(1, 2), (3, 3), (4, 2), (5, 5), (12, 12)])
@pytest.mark.parametrize("sizes", BATCHES)
def test_maps_of_a_batch_attend_as_each_alone(sizes, window, shifted):
    for square in (False, True) if window[0] == window[1] else (False,):
        allowed = allowed_pairs(layout_of(sizes, window, shifted, square))
        alone = [may_attend(size, window, shifted, square).int() for size in sizes]
        assert torch.equal(allowed.int(), torch.block_diag(*alone))


def test_a_window_is_as_large_as_the_largest_map_needs():
    layout = layout_of(((3, 9), (7, 2)), (8, 8), True)
    assert layout.window == (7, 8)
    assert len(layout.permutation.token_of_slot) == (1 * 2 + 1 * 1) * 7 * 8


@pytest.mark.parametrize("size, window", [((9, 7), (4, 4)), ((16, 16), (8, 4)), ((3, 1), (5, 5))])
def test_layout_has_no_more_windows_than_cover_the_map(size, window):
    for shifted in (False, True):
        layout = layout_of((size,), window, shifted)
        windows = prod(ceil(length / m) for length, m in zip(size, layout.window))
        assert len(layout.to_windows(torch.zeros(prod(size), 1))) == windows


@pytest.mark.parametrize(
    "cache, make",
    [
        (window_layout, lambda n: layout_of(((1, n),), (4, 4), True)),
        (tokens_per_image, lambda n: tokens_per_image(((1, n),), CPU)),
    ],
)
def test_cache_of_layouts_is_bounded_and_hits(cache, make):
    limit = cache.cache_info().maxsize
    assert limit is not None and limit <= 256
    for n in range(1, limit + 10):
        make(n)
    assert cache.cache_info().currsize == limit
    assert make(limit + 9) is make(limit + 9)


def test_layouts_first_made_in_inference_mode_can_be_trained_with():
    with torch.inference_mode():
        layout = layout_of(((11, 13),), (3, 4), True)
        tokens_per_image(((11, 13),), CPU)
    x = torch.randn(11 * 13, 2, requires_grad=True)
    assert layout is layout_of(((11, 13),), (3, 4), True)
    assert not tokens_per_image(((11, 13),), CPU).is_inference()
    layout.to_windows(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))
