"""SimMIM: its masks, its loss, and the model that must not see hidden pixels."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from checkpoint_files import SMALL, published
from oracle import randomize
from publishers import PUBLISHERS, native_state
from publishers import classifier as publishers_classifier
from torch import Tensor

from swinv2_backbone import SwinV2, SwinV2Classifier, load_checkpoint
from swinv2_backbone.checkpoints.files import write_file
from swinv2_backbone.checkpoints.save import METADATA, notes_of
from swinv2_backbone.simmim import SimMIM, check_masking, masked_l1, random_masks


def small_model(**options) -> SimMIM:
    """Build a model whose norms are not zero; in a new model every block is the identity."""
    torch.manual_seed(0)
    backbone = SwinV2(
        16, (1, 2, 1, 1), num_heads=(1, 2, 4, 8), window_size=4, out_features=("res5",), **options
    )
    return SimMIM(randomize(backbone, seed=0))


def some_images(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def some_masks(count: int = 2, image_size: int = 64, patch: int = 16, ratio: float = 0.6) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return random_masks(count, image_size, generator, patch=patch, ratio=ratio)


# ---- Masks


@pytest.mark.parametrize(
    ("image_size", "patch", "ratio", "hidden"),
    [
        (192, 32, 0.6, 22),
        (192, 32, 0.5, 18),
        (64, 16, 0.6, 10),
        (64, 4, 0.75, 192),
        (96, 32, 0.1, 1),
    ],
)
def test_each_image_has_exactly_the_share_of_hidden_squares_rounded_up(
    image_size, patch, ratio, hidden
):
    masks = some_masks(5, image_size, patch, ratio)
    tokens = patch // 4
    assert masks.shape == (5, image_size // 4, image_size // 4) and masks.dtype == torch.bool
    assert masks.sum(dim=(1, 2)).tolist() == [hidden * tokens**2] * 5


def test_squares_are_hidden_as_a_whole():
    masks = some_masks(3, 192, 32)
    squares = masks.view(3, 6, 8, 6, 8).transpose(2, 3).flatten(3).float().mean(dim=3)
    assert set(squares.flatten().tolist()) == {0.0, 1.0}


def test_masks_differ_between_images_and_follow_from_the_generator_alone():
    masks = some_masks(4)
    assert len({tuple(one.flatten().tolist()) for one in masks}) == 4
    before = torch.get_rng_state()
    assert torch.equal(some_masks(4), masks)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_square_is_hidden_equally_often():
    masks = some_masks(2000, 64, 16, 0.5)
    often = masks[:, ::4, ::4].float().mean(dim=0)
    assert (often - 0.5).abs().max() < 0.06  # five standard deviations


@pytest.mark.parametrize(
    ("image_size", "patch", "ratio", "words"),
    [
        (100, 32, 0.6, "multiple of the mask patch 32, got 100: take 128"),
        (16, 32, 0.6, "multiple of the mask patch 32, got 16: take 32"),
        (64, 6, 0.6, "multiple of the backbone's patches of 4 pixels, got 6"),
        (64, 0, 0.6, "multiple of the backbone's patches of 4 pixels, got 0"),
        (64, 32, 0.0, "but not all of the 4 squares of an image, got 0.0"),
        (64, 32, 0.9, "hide some but not all of the 4 squares of an image, got 0.9"),
    ],
)
def test_images_that_cannot_be_masked_so_are_refused(image_size, patch, ratio, words):
    with pytest.raises(ValueError, match=words):
        check_masking(image_size, patch, ratio)


# ---- Loss


def mean_error_by_hand(found: Tensor, images: Tensor, mask: Tensor) -> float:
    """Average the error pixel by pixel, over the hidden patches and the channels."""
    errors = [
        abs(found[b, c, y, x].item() - images[b, c, y, x].item())
        for b in range(len(images))
        for y in range(images.shape[2])
        for x in range(images.shape[3])
        if mask[b, y // 4, x // 4]
        for c in range(images.shape[1])
    ]
    return math.fsum(errors) / len(errors)


def test_the_loss_is_the_mean_absolute_error_of_the_hidden_pixels():
    model, images, mask = small_model(), some_images(), some_masks()
    found = model.reconstruct(images, mask)
    expected = mean_error_by_hand(found, images, mask)
    assert model(images, mask).item() == pytest.approx(expected, rel=1e-6)


def test_the_loss_does_not_see_visible_pixels():
    images, mask = some_images(), some_masks()
    found = some_images().flip(0)
    hidden = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    noisy = torch.where(hidden, found, found + 100)
    assert masked_l1(noisy, images, mask) == masked_l1(found, images, mask) > 0


@pytest.mark.parametrize("kernel", ["reference", "auto"])
def test_nothing_of_a_hidden_pixel_reaches_the_reconstruction(kernel):
    model, images, mask = small_model(kernel=kernel).eval(), some_images(), some_masks()
    hidden = mask.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other = torch.where(hidden, images.flip(0) * 3, images)
    with torch.no_grad():
        found = model.reconstruct(images, mask)
        assert torch.equal(model.reconstruct(other, mask), found)
        visible = torch.where(hidden, images, images + 0.1)
        assert not torch.allclose(model.reconstruct(visible, mask), found)


def test_without_hidden_patches_the_features_are_the_backbones():
    model, images = small_model().eval(), some_images(2, 64, 96)
    with torch.no_grad():
        found = model.reconstruct(images, torch.zeros(2, 16, 24, dtype=torch.bool))
        expected = model.decoder(model.backbone(images)["res5"])
    assert torch.equal(found, expected) and found.shape == images.shape


def test_a_token_of_the_last_map_predicts_the_pixels_above_it():
    model = small_model()
    torch.nn.init.zeros_(model.decoder[0].weight)
    wanted = some_images(1, 32, 32)
    with torch.no_grad():  # channel after channel, row after row
        model.decoder[0].bias.copy_(wanted.flatten())
        found = model.reconstruct(some_images(1), torch.zeros(1, 16, 16, dtype=torch.bool))
    assert torch.equal(found, wanted.repeat(1, 1, 2, 2))


@pytest.mark.parametrize("options", [{}, {"activation_checkpointing": True}])
def test_every_parameter_gets_a_gradient(options):
    model = small_model(**options).train()
    model(some_images(), some_masks()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_loss_is_float32_in_any_precision(dtype):
    model, images = small_model(), some_images()
    if dtype == torch.float64:
        loss = model.double()(images.double(), some_masks())
    else:
        with torch.autocast("cpu", dtype):
            loss = model(images, some_masks())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(small_model()(images, some_masks()).item(), rel=1e-2)


@pytest.mark.parametrize(
    ("images", "mask", "words"),
    [
        (
            some_images(2, 48, 64),
            torch.zeros(2, 12, 16, dtype=torch.bool),
            "stride 32, got 48 x 64",
        ),
        (
            some_images(),
            torch.zeros(1, 16, 16, dtype=torch.bool),
            r"\(2, 16, 16\), .* \(1, 16, 16\)",
        ),
        (some_images(), torch.zeros(2, 16, 16), "must be bool .* got torch.float32"),
    ],
)
def test_images_and_masks_that_do_not_fit_are_refused(images, mask, words):
    with pytest.raises(ValueError, match=words):
        small_model().reconstruct(images, mask)


def test_a_backbone_with_outputs_that_would_not_be_trained_is_refused():
    backbone = SwinV2(16, (1, 1), num_heads=(1, 2), window_size=4, out_features=("res2", "res3"))
    with pytest.raises(ValueError, match=r"out_features=\('res3',\), not \('res2', 'res3'\)"):
        SimMIM(backbone)


# ---- Weights


def saved(model: SimMIM, folder: Path) -> Path:
    path = folder / "simmim.pth"
    content = {"model": model.state_dict(), METADATA: notes_of(model.backbone)}
    write_file(path, content, {})
    return path


def same_weights(one: SwinV2, other: SwinV2) -> bool:
    found = one.state_dict()
    return all(torch.equal(found[name], value) for name, value in other.state_dict().items())


def fresh(**options) -> SwinV2:
    return SwinV2(16, (1, 2, 1, 1), num_heads=(1, 2, 4, 8), window_size=8, **options)


def test_its_weights_load_into_a_backbone_with_other_outputs(tmp_path):
    model, backbone = small_model(), fresh()
    report = load_checkpoint(backbone, saved(model, tmp_path))
    assert same_weights(backbone, model.backbone)
    assert backbone.pretrained_window_sizes == ((4, 4),) * 4  # not the 8 of its own windows
    assert sorted(report.new) == [
        f"norms.res{stage}.{part}" for stage in (2, 3, 4) for part in ("bias", "weight")
    ]
    assert sorted(report.dropped) == ["decoder.0.bias", "decoder.0.weight", "mask_token"]
    assert "1 x not part of the model (mask_token)" in str(report)
    assert "2 x not part of the model (decoder.*)" in str(report)


def test_a_classifier_takes_them_and_starts_with_a_new_head(tmp_path):
    model = small_model()
    classifier = SwinV2Classifier(fresh(out_features=("res5",)), 7)
    report = load_checkpoint(classifier, saved(model, tmp_path), partial=True)
    assert same_weights(classifier.backbone, model.backbone)
    assert report.missing == ["head.weight", "head.bias"]


def test_they_load_into_a_simmim_whole(tmp_path):
    model, other = small_model(), SimMIM(fresh(out_features=("res5",)))
    assert load_checkpoint(other, saved(model, tmp_path)).complete
    assert torch.equal(other.mask_token, model.mask_token)
    assert torch.equal(other.decoder[0].weight, model.decoder[0].weight)


def test_a_published_file_starts_a_pre_training(tmp_path):
    """The backbone is loaded; the mask token and decoder, whose names differ, keep new weights."""
    state = native_state(SMALL)
    backbone = publishers_classifier(SMALL, num_classes=1).backbone
    model = SimMIM(backbone)
    report = load_checkpoint(model, published(state, SMALL, "simmim", tmp_path))
    assert report.layout == "SimMIM"
    assert report.new == ["mask_token", "decoder.0.weight", "decoder.0.bias"]
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_names_and_shapes_around_the_backbone_are_those_of_published_files():
    theirs = PUBLISHERS["simmim"](native_state(SMALL), SMALL)["model"]
    model = SimMIM(
        SwinV2(32, (2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=8, out_features=("res5",))
    )
    own = {n: t.shape for n, t in model.state_dict().items() if not n.startswith("backbone.")}
    around = {
        name.removeprefix("encoder."): tensor.shape
        for name, tensor in theirs.items()
        if name.startswith("decoder.") or name == "encoder.mask_token"
    }
    assert own == around
