"""MaskTransformer against Mask2Former of Hugging Face and against the paper's formulas."""

from __future__ import annotations

import itertools
import math
import re
from functools import partial

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former import modeling_mask2former as hugging_face

from swinv2_backbone.d2 import D2SwinV2, with_true_sizes
from swinv2_backbone.d2.modeling.image_sizes import attached_sizes
from swinv2_backbone.d2.modeling.mask_transformer import MaskTransformer
from swinv2_backbone.d2.modeling.mask_transformer.criterion import Criterion, Target
from swinv2_backbone.d2.modeling.mask_transformer.decoder import Prediction
from swinv2_backbone.d2.modeling.mask_transformer.pixel_decoder import (
    DeformableAttention,
    PixelDecoder,
)

assert_close = partial(torch.testing.assert_close, rtol=1e-5, atol=3e-5)
CHANNELS, CLASSES, QUERIES, LAYERS = 64, 5, 7, 4
WIDTHS = {"res2": 8, "res3": 16, "res4": 24, "res5": 32}
# Ours -> Hugging Face's, in the state dict.
PIXEL_DECODER = [
    (r"projections\.res5", "input_projections.0"),
    (r"projections\.res4", "input_projections.1"),
    (r"projections\.res3", "input_projections.2"),
    (r"level_embed\.weight", "level_embed"),
    (r"lateral", "adapter_1"),
    (r"fusion", "layer_1"),
    (r"mask_features", "mask_projection"),
    (r"layers\.(\d)\.attn\.value", r"encoder.layers.\1.self_attn.value_proj"),
    (r"layers\.(\d)\.attn\.output", r"encoder.layers.\1.self_attn.output_proj"),
    (r"layers\.(\d)\.attn", r"encoder.layers.\1.self_attn"),
    (r"^layers\.(\d)\.norm1", r"encoder.layers.\1.self_attn_layer_norm"),
    (r"^layers\.(\d)\.norm2", r"encoder.layers.\1.final_layer_norm"),
    (r"^layers\.(\d)\.mlp\.0", r"encoder.layers.\1.fc1"),
    (r"^layers\.(\d)\.mlp\.2", r"encoder.layers.\1.fc2"),
]
DECODER = [
    (r"query_content", "queries_features"),
    (r"query_position", "queries_embedder"),
    *(
        (rf"mask_head\.{2 * layer}", f"decoder.mask_predictor.mask_embedder.{layer}.0")
        for layer in range(3)
    ),
    (r"^norm", "decoder.layernorm"),
    (r"layers\.(\d)\.norm1", r"decoder.layers.\1.cross_attn_layer_norm"),
    (r"layers\.(\d)\.norm2", r"decoder.layers.\1.self_attn_layer_norm"),
    (r"layers\.(\d)\.norm3", r"decoder.layers.\1.final_layer_norm"),
    (r"layers\.(\d)\.mlp\.0", r"decoder.layers.\1.fc1"),
    (r"layers\.(\d)\.mlp\.2", r"decoder.layers.\1.fc2"),
    (r"^layers\.(\d)\.(cross|self)_attn", r"decoder.layers.\1.\2_attn"),
]


def model(**arguments) -> MaskTransformer:
    torch.manual_seed(0)
    backbone = D2SwinV2(embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4)
    built = MaskTransformer(
        backbone=backbone,
        **{"num_classes": CLASSES, "task": "instance", "num_queries": QUERIES}
        | {"channels": CHANNELS, "num_heads": 4, "encoder_layers": 2, "decoder_layers": LAYERS}
        | {"points": 64, "pixel_mean": (0.0,) * 3, "pixel_std": (1.0,) * 3}
        | arguments,
    )
    randomize(built)
    return built


def randomize(module: nn.Module) -> None:
    """Change all parameters: zeros, such as the weights of offsets, prove nothing."""
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)


def hugging_face_config() -> Mask2FormerConfig:
    return Mask2FormerConfig(
        feature_size=CHANNELS,
        mask_feature_size=CHANNELS,
        hidden_dim=CHANNELS,
        encoder_layers=2,
        encoder_feedforward_dim=4 * CHANNELS,
        dim_feedforward=8 * CHANNELS,
        decoder_layers=LAYERS + 1,
        num_attention_heads=4,
        num_queries=QUERIES,
        num_labels=CLASSES,
        dropout=0.0,
        pre_norm=False,
        enforce_input_projection=False,
        train_num_points=64,
    )


def copied(
    weights: dict[str, Tensor], target: nn.Module, names: list[tuple[str, str]]
) -> nn.Module:
    """Copy our weights to a module of Hugging Face's, which must have no others."""
    state = {}
    for key, value in weights.items():
        for old, new in names:
            key, changed = re.subn(old, new, key)
            if changed:
                break
        if ".self_attn.in_proj_" in key:  # its self attention has three layers
            for part, one in zip("qkv", value.chunk(3)):
                state[key.replace("in_proj_", f"{part}_proj.")] = one
        else:
            state[key] = value
    target.load_state_dict(state)
    return target.eval()


@pytest.fixture(scope="module")
def features() -> dict[str, Tensor]:
    torch.manual_seed(1)
    sizes = ((24, 20), (12, 10), (6, 5), (3, 3))
    return {
        name: torch.randn(2, channels, *size)
        for (name, channels), size in zip(WIDTHS.items(), sizes, strict=True)
    }


def test_predictions_equal_those_of_mask2former(features):
    ours = model()
    config = hugging_face_config()
    shape = {name: ShapeSpec(channels=one.shape[1]) for name, one in features.items()}
    for stride, (name, one) in enumerate(shape.items()):
        shape[name] = ShapeSpec(channels=one.channels, stride=4 << stride)
    own = PixelDecoder(shape, CHANNELS, layers=2, num_heads=4)
    randomize(own)
    decoder = hugging_face.Mask2FormerPixelDecoder(config, list(WIDTHS.values()))
    theirs = copied(own.state_dict(), decoder, PIXEL_DECODER)(list(features.values()))
    mask_features, levels = own(features)
    assert_close(mask_features, theirs.mask_features)
    for one, other in zip(levels, theirs.multi_scale_features, strict=True):
        assert_close(one, other)

    weights = ours.decoder.state_dict()
    head = {key: weights.pop(key) for key in list(weights) if key.startswith("class_head")}
    transformer = hugging_face.Mask2FormerTransformerModule(CHANNELS, config)
    found = copied(weights, transformer, DECODER)(levels, mask_features, output_hidden_states=True)
    predictions = ours.decoder(levels, mask_features)
    assert len(predictions) == LAYERS + 1
    for one, masks, hidden in zip(
        predictions, found.masks_queries_logits, found.intermediate_hidden_states, strict=True
    ):
        assert_close(one.masks, masks)
        classes = torch.nn.functional.linear(hidden.transpose(0, 1), *head.values())
        assert_close(one.classes, classes)


def test_deformable_attention_samples_at_learned_offsets():
    torch.manual_seed(0)
    attention = DeformableAttention(4, levels=2, num_heads=2, points=3)
    randomize(attention)
    sizes = [(3, 5), (2, 2)]
    query, tokens = torch.randn(2, 1, 19, 4)
    places = torch.rand(19, 2)
    values = attention.value(tokens)[0].split([15, 4])
    offsets = attention.sampling_offsets(query).view(19, 2, 2, 3, 2)
    weights = attention.attention_weights(query).view(19, 2, 6).softmax(-1).view(19, 2, 2, 3)
    expected = torch.zeros(19, 4)
    for token, head, level, point in itertools.product(range(19), range(2), range(2), range(3)):
        height, width = sizes[level]
        x, y = places[token] * torch.tensor([width, height]) - 0.5
        x, y = x + offsets[token, head, level, point, 0], y + offsets[token, head, level, point, 1]
        for row, column in itertools.product(range(height), range(width)):
            near = (1 - (x - column).abs()).clamp(min=0) * (1 - (y - row).abs()).clamp(min=0)
            value = values[level][row * width + column, 2 * head : 2 * head + 2]
            expected[token, 2 * head : 2 * head + 2] += (
                weights[token, head, level, point] * near * value
            )
    assert_close(attention(query, tokens, places, sizes)[0], attention.output(expected))


# Masks without edges: then a loss on sampled points is that on all pixels.
def flat(values: list[float]) -> Tensor:
    return torch.tensor(values)[:, None, None].expand(-1, 6, 8)


def test_masks_are_matched_at_the_least_total_cost():
    torch.manual_seed(0)
    criterion = Criterion(3, points=9)
    logits, scores = torch.randn(5), torch.randn(5, 4)
    target = Target(torch.tensor([2, 0, 2]), flat([1.0, 0.0, 1.0]) > 0)
    query, row = criterion.match(Prediction(scores, flat(logits.tolist())), target)
    cost = [
        [
            -2 * scores[q].softmax(0)[target.classes[t]]
            + 5 * entropy(logits[q], truth)
            + 5 * dice(logits[q], truth, 9)
            for t, truth in enumerate((1.0, 0.0, 1.0))
        ]
        for q in range(5)
    ]
    best = min(
        itertools.permutations(range(5), 3),
        key=lambda chosen: sum(cost[q][t] for t, q in enumerate(chosen)),
    )
    assert dict(zip(row.tolist(), query.tolist())) == dict(enumerate(best))


def entropy(logit: Tensor, truth: float) -> float:
    probability = float(logit.sigmoid())
    return -truth * math.log(probability) - (1 - truth) * math.log(1 - probability)


def dice(logit: Tensor, truth: float, points: int) -> float:
    probability = float(logit.sigmoid())
    return 1 - (2 * points * probability * truth + 1) / (points * (probability + truth) + 1)


def test_losses_equal_the_formulas():
    criterion = Criterion(2, points=16)
    # Query 0 is the mask of class 1, query 1 of class 0; query 2 is no object. Image 2 has none.
    logits = torch.tensor([3.0, -2.0, -1.0])
    scores = torch.tensor([[-4.0, 4.0, 0.0], [4.0, -4.0, 0.0], [0.0, 1.0, 2.0]])
    classes, masks = torch.stack([scores, scores]), torch.stack([flat(logits.tolist())] * 2)
    targets = [
        Target(torch.tensor([0, 1]), flat([0.0, 1.0]) > 0),
        Target(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 6, 8) > 0),
    ]
    losses = criterion([Prediction(classes, masks)] * 2, targets)
    labels = [1, 0, 2, 2, 2, 2]
    weights = [1.0 if label < 2 else 0.1 for label in labels]
    each = [
        -weight * float(score.log_softmax(0)[label])
        for score, label, weight in zip([*scores, *scores], labels, weights)
    ]
    expected = {
        "loss_class": 2 * sum(each) / sum(weights),
        "loss_mask": 5 * (entropy(logits[0], 1.0) + entropy(logits[1], 0.0)) / 2,
        "loss_dice": 5 * (dice(logits[0], 1.0, 16) + dice(logits[1], 0.0, 16)) / 2,
    }
    expected |= {f"{name}_0": value for name, value in expected.items()}
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)


def test_every_parameter_learns_also_from_images_without_objects():
    built = model().train()
    inputs = [{"image": torch.rand(3, 33, 40), "instances": targets((33, 40), 2)}]
    inputs.append({"image": torch.rand(3, 40, 20), "instances": targets((40, 20), 0)})
    losses = built(inputs)
    assert len(losses) == 3 * (LAYERS + 1)
    sum(losses.values()).backward()
    without = [name for name, one in built.named_parameters() if one.grad is None]
    assert not without
    built.zero_grad()
    sum(built(inputs[1:]).values()).backward()
    assert all(torch.isfinite(one.grad).all() for one in built.parameters() if one.grad is not None)


def targets(size: tuple[int, int], count: int) -> Instances:
    found = Instances(size)
    found.gt_classes = torch.arange(count)
    found.gt_masks = torch.rand(count, *size) > 0.5
    return found


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_results_have_the_size_of_the_original_image(task):
    built = model(task=task, detections_per_image=QUERIES * CLASSES).eval()
    inputs = [{"image": torch.rand(3, 30, 40), "height": 60, "width": 80}]
    inputs.append({"image": torch.rand(3, 64, 33)})
    with torch.no_grad():
        together = built(inputs)
        batch = built.preprocess_image(inputs).tensor
        mask_features, levels = built.pixel_decoder(built.backbone(batch))
        classes, masks = built.decoder(levels, mask_features)[-1]
    large = torch.nn.functional.interpolate(masks, batch.shape[-2:], mode="bilinear")[1, :, :, :33]
    assert [sizes(one) for one in together] == [(60, 80), (64, 33)]
    if task == "semantic":
        weights = classes[1].softmax(1)[:, :-1]
        expected = (weights[:, :, None, None] * large.sigmoid()[:, None]).sum(0)
        assert_close(together[1]["sem_seg"], expected)
        return
    found = together[1]["instances"]
    means = [float(one[one > 0].sigmoid().mean()) if (one > 0).any() else 0.0 for one in large]
    scores = classes[1].softmax(1)[:, :-1] * torch.tensor(means)[:, None]
    assert_close(found.scores.sort()[0], scores.flatten().sort()[0])
    best = int(found.scores.argmax())
    query, label = divmod(int(scores.argmax()), CLASSES)
    assert int(found.pred_classes[best]) == label
    assert torch.equal(found.pred_masks[best], large[query] > 0)


def sizes(result: dict) -> tuple[int, ...]:
    if "sem_seg" in result:
        return tuple(result["sem_seg"].shape[-2:])
    return tuple(result["instances"].pred_masks.shape[-2:])


def test_padding_of_a_batch_is_known_to_the_backbone():
    built = with_true_sizes(model().eval())  # a mean of 0, so zeros are pixels too
    batch = built.preprocess_image(
        [{"image": torch.zeros(3, 20, 64)}, {"image": torch.ones(3, 64, 64)}]
    )
    assert attached_sizes(batch.tensor) == [(20, 64), (64, 64)]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"task": "panoptic"}, "tasks instance, semantic, not 'panoptic'"),
        ({"channels": 48}, "channels 48 must be a multiple of 32"),
    ],
)
def test_arguments_that_do_not_fit_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        model(**arguments)


def test_autocast_changes_predictions_little():
    built = model().eval()
    inputs = [{"image": torch.rand(3, 40, 40)}]
    with torch.no_grad():
        expected = built(inputs)[0]["instances"]
        with torch.autocast("cpu", torch.bfloat16):
            found = built(inputs)[0]["instances"]
    assert found.scores.dtype == torch.float32
    torch.testing.assert_close(found.scores[:3], expected.scores[:3], rtol=0.1, atol=0)
