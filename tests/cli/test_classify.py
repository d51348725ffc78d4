"""tools/classify.py: names, order, accuracy, and messages about bad input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_files import SMALL, write
from PIL import Image
from publishers import PUBLISHERS, filled_classifier, native_state
from scripts import tool

from swinv2_backbone import VARIANTS
from swinv2_backbone.cli import classification


def image(seed: int, size: tuple[int, int] = (300, 280)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def weights(folder: Path, classes: int) -> Path:
    path = folder / f"head{classes}.pth"
    return write(PUBLISHERS["mmpretrain"](native_state(SMALL, num_classes=classes), SMALL), path)


@pytest.fixture
def run(capsys, monkeypatch):
    monkeypatch.setitem(VARIANTS, "small", SMALL)

    def run(*args) -> str:
        tool("classify").main(["--model", "small", *map(str, args)])
        return capsys.readouterr().out

    return run


def test_the_five_most_probable_classes_are_printed_by_name(run, tmp_path):
    image(0).save(tmp_path / "a.png")
    image(1).save(tmp_path / "b.jpg")
    lines = run(
        "--weights", weights(tmp_path, 1000), tmp_path / "a.png", tmp_path / "b.jpg"
    ).splitlines()
    assert len(lines) == 12 and lines[0].endswith("a.png") and lines[6].endswith("b.jpg")
    model = filled_classifier(native_state(SMALL), SMALL)
    with torch.no_grad():
        logits = model(classification.preparation(SMALL.image_size)(image(0))[None])[0]
    best = logits.softmax(0).topk(5)
    names = classification.Swin_V2_T_Weights.IMAGENET1K_V1.meta["categories"]
    assert names[0] == "tench" and len(names) == 1000
    for line, p, index in zip(lines[1:6], best.values, best.indices, strict=True):
        assert line.split(maxsplit=1)[1] == names[index]
        assert float(line.split()[0]) == pytest.approx(p.item(), abs=1e-3)


def test_given_names_are_used_and_counted(run, tmp_path):
    image(0).save(tmp_path / "a.png")
    path = weights(tmp_path, 3)
    assert "class 2 (--classes FILE gives names)" in run("--weights", path, tmp_path / "a.png")
    names = tmp_path / "names.txt"
    names.write_text("fig\ndate\nhazelnut\n")
    text = run("--weights", path, tmp_path / "a.png", "--classes", names)
    assert sorted(line.split()[1] for line in text.splitlines()[1:]) == ["date", "fig", "hazelnut"]
    names.write_text("fig\n")
    with pytest.raises(SystemExit, match=r"ValueError: .* of lines \(1\) than .* classes \(3\)"):
        run("--weights", path, tmp_path / "a.png", "--classes", names)


def test_accuracy_of_a_folder_is_that_of_its_labels(run, tmp_path, monkeypatch):
    """Eight images are sorted by the model's own answers; two get a label of a lower rank."""
    path, folder = weights(tmp_path, 8), tmp_path / "val"
    model = filled_classifier(native_state(SMALL, num_classes=8), SMALL)
    for label in range(8):
        (folder / f"n{label}").mkdir(parents=True)
    with torch.no_grad():
        for seed in range(8):
            logits = model(classification.preparation(SMALL.image_size)(image(seed))[None])[0]
            ranked = logits.argsort(descending=True).tolist()
            label = ranked[0] if seed < 6 else ranked[4] if seed == 6 else ranked[7]
            image(seed).save(folder / f"n{label}" / f"{seed}.png")
        for label in range(8):  # torchvision refuses a folder without images
            if not list((folder / f"n{label}").iterdir()):
                (folder / f"n{label}").rmdir()
                (folder / f"n{label}").mkdir()
    images = classification.ImageFolder
    monkeypatch.setattr(
        classification,
        "ImageFolder",
        lambda *args, **kwargs: images(*args, allow_empty=True, **kwargs),
    )
    text = run("--weights", path, "--imagefolder", folder, "--workers", 0)
    assert "top-1 75.00 %, top-5 87.50 % of 8 images" in text
    assert "published" not in text  # those are for other classes


def test_a_folder_of_other_classes_is_refused(run, tmp_path):
    (tmp_path / "val" / "n0").mkdir(parents=True)
    image(0).save(tmp_path / "val" / "n0" / "a.png")
    with pytest.raises(SystemExit, match="ValueError: .* has 1 class folders, the model 3 classes"):
        run("--weights", weights(tmp_path, 3), "--imagefolder", tmp_path / "val")


def test_bad_input_is_named(run, tmp_path):
    with pytest.raises(SystemExit, match="ValueError: no file 'nowhere.jpg'"):
        run("nowhere.jpg")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken.jpg cannot be read as an image"):
        classification.read_image(tmp_path / "broken.jpg")
    with pytest.raises(SystemExit):
        run()


def test_one_unreadable_image_does_not_stop_the_others(run, tmp_path, capsys):
    image(0).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"\xff\x0a" + bytes(20))
    image(1).save(tmp_path / "c.gif")
    files = [tmp_path / name for name in ("a.png", "b.jpg", "c.gif")]
    with pytest.raises(SystemExit, match="b.jpg.* JPEG XL image: convert it to PNG"):
        run("--weights", weights(tmp_path, 3), *files)
    assert len(capsys.readouterr().out.splitlines()) == 8


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    values = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    read = np.asarray(classification.read_image(tmp_path / "a.png"))[:, :, 0]
    assert np.array_equal(read, np.round(values / 257))


def test_a_folder_of_labeled_images_may_hold_every_readable_kind(run, tmp_path):
    for label, suffix in enumerate((".png", ".gif", ".jp2")):
        (tmp_path / "val" / f"n{label}").mkdir(parents=True)
        image(label).save(tmp_path / "val" / f"n{label}" / f"a{suffix}")
    text = run("--weights", weights(tmp_path, 3), "--imagefolder", tmp_path / "val", "--workers", 0)
    assert "of 3 images" in text


def test_images_are_prepared_as_by_the_publishers():
    """Below 384 px: 256/224 of the side, then the center; from 384 px: the whole image, resized."""
    ramp = np.tile(np.arange(0, 256, dtype=np.uint8)[None, :, None], (128, 1, 3))
    picture = Image.fromarray(ramp)  # 256 wide, 128 high
    cropped = classification.preparation(256)(picture)
    assert cropped.shape == (3, 256, 256)
    grey = cropped[0] * 0.229 + 0.485
    # The shorter side, 128, becomes 292; the 256 cropped columns are 112 of the original 256.
    assert grey[128, 0].item() == pytest.approx((128 - 56) / 255, abs=0.01)
    assert grey[128, -1].item() == pytest.approx((128 + 56) / 255, abs=0.01)
    whole = classification.preparation(384)(picture)[0] * 0.229 + 0.485
    assert whole.shape == (384, 384)
    assert whole[0, 0].item() < 0.01 and whole[0, -1].item() > 0.99


def test_photographs_are_turned_upright(tmp_path):
    picture = image(0, (40, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    picture.save(tmp_path / "a.jpg", exif=exif)
    assert classification.read_image(tmp_path / "a.jpg").size == (20, 40)
