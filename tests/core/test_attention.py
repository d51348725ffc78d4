"""Scaled cosine attention: its formula, its gradients, its extremes and its mask."""

import math
from math import prod

import pytest
import torch
from models import pictures
from oracle import attention, may_attend, randomize
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.func import functional_call

from swinv2_backbone.attention import WindowAttention, cosine_attention
from swinv2_backbone.packing import Size
from swinv2_backbone.position_bias import PositionBias
from swinv2_backbone.windows import Partition

WINDOWS, HEADS, TOKENS, CHANNELS = 2, 2, 4, 3  # nW, nH, N, d
HALF = [torch.float16, torch.bfloat16]


PARTITIONS = [
    Partition(((2, 2), (2, 2)), (2, 2), False),  # nothing is masked
    Partition(((3, 5), (2, 1)), (2, 2), True),
]


def some_tokens(partition: Partition, channels: int) -> Tensor:
    return pictures(sum(map(prod, partition.sizes)), channels)


def some_mask() -> Tensor:
    """(nW, N, N): key 3 of window 0 is masked for all; window 1 has two groups of tokens."""
    attn_mask = torch.zeros(WINDOWS, TOKENS, TOKENS, dtype=torch.bool)
    attn_mask[0, :, 3] = True
    group = torch.tensor([0, 1, 1, 0])
    attn_mask[1] = group[:, None] != group[None]
    return attn_mask


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """Return q, k, v, scale and bias; the last two in at least float32, as in the module."""
    precise = torch.promote_types(dtype, torch.float32)
    qkv = pictures(3, WINDOWS, HEADS, TOKENS, CHANNELS).to(dtype).unbind()
    scale = torch.tensor([2.0, 7.0], dtype=precise).view(HEADS, 1, 1)
    return *qkv, scale, 16 * pictures(HEADS, TOKENS, TOKENS, seed=1).to(precise).sigmoid()


def random_attention(dim: int = 8, heads: int = 2, window: Size = (2, 2)) -> WindowAttention:
    return randomize(nn.ModuleDict({"attn": WindowAttention(dim, heads, window)}), 0)["attn"]


@pytest.mark.parametrize("attn_mask", [None, some_mask()], ids=["all", "some"])
def test_gradients_of_cosine_attention_pass_gradcheck(attn_mask):
    leaves = [x.requires_grad_() for x in inputs()]
    assert gradcheck(lambda *x: cosine_attention(*x, attn_mask), leaves)


@pytest.mark.parametrize("window, pretrained", [((2, 3), (4, 4)), ((1, 2), (1, 1))])
def test_gradients_of_the_position_bias_pass_gradcheck(window, pretrained):
    bias = PositionBias(2, pretrained).double()
    randomize(nn.ModuleDict({"cpb_mlp": bias}), 0)
    names, leaves = zip(*bias.named_parameters())

    def of_parameters(*parameters: Tensor) -> Tensor:
        return functional_call(bias, dict(zip(names, parameters)), (window,))

    # In random directions: checking the MLP's 2,560 parameters one by one takes minutes.
    assert gradcheck(of_parameters, leaves, fast_mode=True)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_gradients_of_window_attention_pass_gradcheck(partition):
    module = random_attention(dim=4, heads=2).double().train()
    with torch.no_grad():
        module.logit_scale.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1))  # off the clamp's kink
    names, leaves = zip(*(item for item in module.named_parameters() if "cpb" not in item[0]))
    tokens = some_tokens(partition, 4).double().requires_grad_()

    def of_leaves(tokens: Tensor, *parameters: Tensor) -> Tensor:
        return functional_call(module, dict(zip(names, parameters)), (tokens, partition))

    assert gradcheck(of_leaves, (tokens, *leaves))


@pytest.mark.parametrize("partition", PARTITIONS)
def test_window_attention_equals_the_oracle(partition):
    module = random_attention().double()
    tokens = some_tokens(partition, 8).double()
    state = {f"a.{name}": value for name, value in module.state_dict().items()}
    expected = []
    for own, size in zip(tokens.split([prod(size) for size in partition.sizes]), partition.sizes):
        coords = torch.cartesian_prod(*(torch.arange(length) for length in size)).double()
        may = may_attend(size, partition.window, partition.shifted)
        expected.append(attention(state, "a", own, coords, may, (2, 2)))
    actual = module(tokens, partition)
    torch.testing.assert_close(actual, torch.cat(expected), rtol=0, atol=1e-12)


def test_attention_does_not_depend_on_the_length_of_queries_and_keys():
    q, k, v, scale, bias = inputs()
    expected = cosine_attention(q, k, v, scale, bias, None)
    actual = cosine_attention(1e-3 * q, 1e4 * k, v, scale, bias, None)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)


def test_logit_scale_above_ln_100_is_clamped():
    module, partition = random_attention(), PARTITIONS[0]
    tokens, results = some_tokens(partition, 8), []
    for logit_scale in (math.log(100), math.log(100) + 1, 50.0, 1e30):
        module.zero_grad()
        with torch.no_grad():
            module.logit_scale.fill_(logit_scale)
        results.append(module(tokens, partition))
        results[-1].sum().backward()
        assert logit_scale == math.log(100) or not module.logit_scale.grad.any()
    assert all(torch.equal(result, results[0]) for result in results)
    with torch.no_grad():
        module.logit_scale.fill_(math.log(99))
    module.zero_grad()
    below = module(tokens, partition)
    below.sum().backward()
    assert not torch.equal(below, results[0]) and module.logit_scale.grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
@pytest.mark.parametrize("logit_scale", [-1e4, -20.0, 0.0, math.log(100), 1e4])
def test_extremes_of_the_logit_scale_are_finite(logit_scale, dtype):
    module = random_attention().to(dtype)
    with torch.no_grad():
        module.logit_scale.fill_(logit_scale)
        module.cpb_mlp[2].weight.mul_(100)  # biases at both ends of (0, 16)
    tokens = some_tokens(PARTITIONS[1], 8).to(dtype).requires_grad_()
    out = module(tokens, PARTITIONS[1])
    out.float().sum().backward()
    assert out.dtype == dtype and out.isfinite().all()
    assert tokens.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, *HALF])
def test_queries_and_keys_of_zero_have_finite_gradients(dtype):
    q, k, v, scale, bias = inputs(dtype)
    q[0, :, 1], k[0, :, 2], q[1], k[1] = 0, 0, 0, 0
    leaves = [x.clone().requires_grad_() for x in (q, k, v)]
    out = cosine_attention(*leaves, scale, bias, None)
    out.float().mul(1e-3).sum().backward()
    assert out.isfinite().all() and all(x.grad.isfinite().all() for x in leaves)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_attention_is_as_exact_as_its_inputs(dtype):
    q, k, v, scale, bias = inputs(dtype)
    scale = scale * 14  # 28 and 98: bfloat16 would round such logits by up to 0.25
    exact = [x.double() for x in (q, k, v, scale, bias)]
    out = cosine_attention(q, k, v, scale, bias, None)
    assert out.dtype == dtype
    error = (out.double() - cosine_attention(*exact, None)).abs().max()
    assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("dtype", HALF)
def test_autocast_does_not_reach_the_logits(dtype):
    q, k, v, scale, bias = inputs(dtype)
    expected = cosine_attention(q, k, v, 14 * scale, bias, some_mask())
    with torch.autocast("cpu", dtype=dtype):
        actual = cosine_attention(q, k, v, 14 * scale, bias, some_mask())
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALF])
def test_masked_keys_have_exactly_no_influence_and_no_gradient(dtype):
    attn_mask = some_mask()
    q, k, v, scale, bias = (x.requires_grad_() for x in inputs(dtype))
    out = cosine_attention(q, k, v, scale, bias, attn_mask)
    other_k, other_v = k.detach().clone(), v.detach().clone()
    other_k[0, :, 3], other_v[0, :, 3] = -q.detach()[0, :, 3], 1e4
    assert torch.equal(cosine_attention(q, other_k, other_v, scale, bias, attn_mask), out)
    out[0].float().sum().backward()
    for x in (k, v):
        assert not x.grad[0, :, 3].any() and x.grad[0, :, :3].any()
    k.grad = v.grad = None
    cosine_attention(q, k, v, scale, bias, attn_mask)[1, :, 0].float().sum().backward()
    assert not v.grad[1, :, 1:3].any() and not k.grad[1, :, 1:3].any()  # the other group's
    assert v.grad[1, :, [0, 3]].ne(0).all()
