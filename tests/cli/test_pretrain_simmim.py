"""The SimMIM pre-training and its tool: the same training however often it is interrupted."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.engine import HookBase
from detectron2.modeling import build_model
from detectron2.utils import comm
from processes import start, together
from scripts import ROOT, tool

from swinv2_backbone import SwinV2, Variant, build_backbone, load_checkpoint
from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2 import add_swinv2_config
from swinv2_backbone.d2.data.loading.draws import BrokenImagesError
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.pretraining.masked import MaskedImages, find_images
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.reconstruction import FixedImages
from swinv2_backbone.d2.pretraining.simmim import Pretraining, PretrainingModel, pretrain
from swinv2_backbone.d2.solver.optimizer import parameter_groups
from swinv2_backbone.variants import VARIANTS

SMALL = Variant(16, (1, 2, 1, 1), (1, 2, 4, 8), (4, 4, 4, 2), (4, 4, 4, 2), 64)
RECIPE = Recipe(
    iterations=7, batch_size=4, image_size=64, mask_patch=16, num_workers=0, period=3, lr=1e-3
)
FOREVER = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten pictures of two colours each, in folders."""
    root = tmp_path_factory.mktemp("images")
    for number in range(10):
        rng = np.random.default_rng(number)
        picture = np.empty((50 + 9 * number, 90, 3), np.uint8)
        picture[:] = rng.integers(0, 256, 3)
        picture[20:60, 30:70] = rng.integers(0, 256, 3)
        path = root / f"{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), picture)
    return root


def small_backbone(**options) -> SwinV2:
    return SwinV2(
        SMALL.embed_dim,
        SMALL.depths,
        num_heads=SMALL.num_heads,
        window_size=SMALL.window_sizes,
        **{"out_features": ("res5",), "drop_path_rate": 0.2} | options,
    )


class Recorder(HookBase):
    """The losses of the main process."""

    def __init__(self):
        self.losses: dict[int, float] = {}

    def after_step(self) -> None:
        self.losses[self.trainer.iter] = self.trainer.storage.latest()["total_loss"][0]


class BrokenOffError(Exception):
    pass


class BreakOff(HookBase):
    def __init__(self, iteration: int):
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise BrokenOffError


def train(
    images: Path, output: Path, recipe: Recipe = RECIPE, resume: bool = False, stop: int = -1
) -> dict[int, float]:
    """Iteration -> loss; ``stop``: before which to break off, as if the process were killed."""
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank() + 10 * resume)  # what is resumed has its own generators
    run = Pretraining(
        small_backbone(), find_images(images), output, recipe, resume=resume, device="cpu"
    )
    recorder = Recorder()
    run.step.register_hooks(([recorder] if comm.is_main_process() else []) + [BreakOff(stop)])
    try:
        run.train()
    except BrokenOffError:
        assert stop >= 0
    return recorder.losses


def weights(output: Path) -> dict[str, torch.Tensor]:
    return read_file(output / "model_final.pth", extras=False).value["model"]


def assert_same_weights(one: Path, other: Path) -> None:
    one, other = weights(one), weights(other)
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# ---- Training


def both(images: Path, output: Path, workers: int) -> tuple[dict, dict]:
    """The losses of a training in one go, and of one that was broken off and resumed."""
    recipe = dataclasses.replace(RECIPE, num_workers=workers)
    whole = train(images, output / "whole", recipe)
    broken_off = train(images, output / "parts", recipe, stop=5)
    return whole, broken_off | train(images, output / "parts", recipe, resume=True)


@pytest.mark.parametrize(("workers", "world"), [(0, 1), (2, 1), (0, 2)])
def test_a_resumed_training_is_bitwise_the_one_in_one_go(folder, tmp_path, workers, world):
    if world == 1:
        whole, parts = both(folder, tmp_path, workers)
    else:
        (whole, parts), *_ = together(2, both, folder, tmp_path, workers, folder=tmp_path)
    assert len(whole) == 7 and len(set(whole.values())) == 7
    assert parts == whole
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    # Of what was broken off the last periodic checkpoint is from before; pictures are replaced.
    assert sorted(path.name for path in (tmp_path / "parts" / "reconstructions").iterdir()) == [
        "0000003.png",
        "0000006.png",
        "0000007.png",
    ]


def without_drop_path(images: Path, output: Path) -> list[float]:
    torch.set_num_threads(1)
    torch.manual_seed(comm.get_rank())  # the wrapper gives all the weights of the first
    backbone = small_backbone(drop_path_rate=0.0)
    run = Pretraining(backbone, find_images(images), output, RECIPE, device="cpu")
    recorder = Recorder()
    run.step.register_hooks([recorder] if comm.is_main_process() else [])
    run.train()
    return list(recorder.losses.values())


def test_two_processes_are_one_with_twice_the_batch(folder, tmp_path):
    one = without_drop_path(folder, tmp_path / "one")
    two, none = together(2, without_drop_path, folder, tmp_path / "two", folder=tmp_path / "logs")
    assert none == []
    assert two == pytest.approx(one, rel=1e-4)


def test_the_loss_of_what_is_hidden_falls(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, iterations=60, lr=3e-3, period=FOREVER)
    losses = list(train(folder, tmp_path, recipe).values())
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_a_signal_ends_a_training_after_its_iteration_and_it_goes_on(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, iterations=FOREVER, period=FOREVER, warmup=2)
    log = tmp_path / "out.txt"
    process = start(train, folder, tmp_path / "run", recipe, log=log)
    while process.is_alive() and not (log.exists() and "Starting training" in log.read_text()):
        time.sleep(0.05)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, log.read_text()
    (last,) = re.findall(r"SIGTERM: stopped after iteration (\d+)", log.read_text())
    stop = int(last) + 3
    resumed = train(folder, tmp_path / "run", recipe, resume=True, stop=stop)
    assert list(resumed) == [stop - 2, stop - 1]


def test_a_training_goes_on_only_as_it_was_begun(folder, tmp_path):
    train(folder, tmp_path, stop=4)
    other = dataclasses.replace(RECIPE, mask_ratio=0.5, lr=2e-3, num_workers=1)
    words = "has mask_ratio 0.6, not 0.5; lr 0.001, not 0.002: give the same again"
    with pytest.raises(ValueError, match=words):
        train(folder, tmp_path, other, resume=True)


def test_a_step_is_one_batch_with_the_papers_optimizer(folder, tmp_path):
    recipe = dataclasses.replace(RECIPE, amp_dtype="bfloat16")
    run = Pretraining(small_backbone(), find_images(folder), tmp_path, recipe, device="cpu")
    assert run.step.amp_dtype == torch.bfloat16
    assert run.step.clip == {"kind": "full_model", "value": 5.0, "norm_type": 2.0}
    assert isinstance(run.step.optimizer, torch.optim.AdamW)
    assert run.step.optimizer.defaults["betas"] == (0.9, 0.999)
    run.train()
    assert run.step.data_loader.images == RECIPE.iterations * RECIPE.batch_size


def test_other_images_at_a_resume_are_noticed(folder, tmp_path, caplog):
    train(folder, tmp_path, stop=4)
    train(folder, tmp_path, resume=True, stop=4)
    assert "other images" not in caplog.text
    train(folder / "0", tmp_path, resume=True, stop=4)
    assert "other images (5) than those it began with (10)" in caplog.text


def test_a_finished_training_is_not_trained_again(folder, tmp_path):
    train(folder, tmp_path)
    before = weights(tmp_path)
    assert train(folder, tmp_path, resume=True) == {}
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path).items())


# ---- What comes out


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory) -> tuple[SwinV2, Path]:
    output = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    backbone = small_backbone()
    assert pretrain(backbone, find_images(folder), output, RECIPE, device="cpu") == (
        output / "model_final.pth"
    )
    return backbone, output


def test_a_backbone_takes_the_weights_and_their_normaliser(trained):
    backbone = small_backbone(out_features=("res2", "res3", "res4", "res5"))
    backbone.set_window_size(8)
    report = load_checkpoint(backbone, trained[1] / "model_final.pth")
    found, expected = backbone.state_dict(), trained[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert report.layout == "native"
    assert report.pretrained_windows.sizes == ((4, 4), (4, 4), (4, 4), (2, 2))
    assert report.pretrained_windows.source == "our notes in the file"


def test_a_detector_starts_from_it(trained):
    cfg = get_cfg()
    add_swinv2_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "RetinaNet"
    cfg.MODEL.BACKBONE.NAME = "build_retinanet_swinv2_fpn_backbone"
    cfg.MODEL.SWINV2.VARIANT = None
    cfg.MODEL.SWINV2.EMBED_DIM, cfg.MODEL.SWINV2.DEPTHS = SMALL.embed_dim, list(SMALL.depths)
    cfg.MODEL.SWINV2.NUM_HEADS, cfg.MODEL.SWINV2.WINDOW_SIZE = list(SMALL.num_heads), 4
    cfg.MODEL.SWINV2.OUT_FEATURES = ["res3", "res4", "res5"]
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    detector = build_model(cfg)
    checkpointer = Checkpointer(detector)
    checkpointer.load(str(trained[1] / "model_final.pth"), checkpointables=[])
    found = detector.backbone.bottom_up.swinv2.state_dict()
    expected = trained[0].state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert "0 missing, 0 of another shape" in checkpointer.report


def test_pictures_show_the_image_what_is_seen_of_it_and_what_became_of_that(trained, folder):
    picture = cv2.imread(str(trained[1] / "reconstructions" / "0000007.png"))[:, :, ::-1]
    assert picture.shape == (8 * 68, 3 * 68, 3)
    mapper = MaskedImages(64, 16, 0.6)
    fixed = FixedImages(find_images(folder), mapper, seed=0)
    image, seen, filled = (picture[:64, x : x + 64] for x in (0, 68, 136))
    hidden = fixed.masks[0].repeat_interleave(4, 0).repeat_interleave(4, 1).numpy()
    assert np.array_equal(image, fixed.images[0].permute(1, 2, 0).numpy())
    assert (seen[hidden] == 128).all() and np.array_equal(seen[~hidden], image[~hidden])
    assert np.array_equal(filled[~hidden], image[~hidden])
    assert len(np.unique(filled[hidden])) > 20


def test_the_loss_of_the_pictures_is_among_the_metrics(trained):
    lines = [json.loads(line) for line in (trained[1] / "metrics.json").read_text().splitlines()]
    assert 0 < lines[-1]["fixed_images/loss"] < 3
    assert json.loads((trained[1] / "recipe.json").read_text())["images"] == 10


def test_old_checkpoints_make_room(folder, tmp_path):
    train(folder, tmp_path, dataclasses.replace(RECIPE, period=1))
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [
        "model_0000003.pth",
        "model_0000004.pth",
        "model_0000005.pth",
        "model_final.pth",
    ]


# ---- Data


def test_images_are_found_in_all_folders_whatever_their_case(folder, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "elsewhere").symlink_to(folder / "0")
    for name in ("z.JPG", "a/b/c.png", "a/notes.txt", "a/._hidden.png"):
        (tmp_path / name).touch()
    found = [str(Path(file).relative_to(tmp_path)) for file in find_images(tmp_path)]
    assert found == ["a/b/c.png", *(f"elsewhere/{n}.png" for n in (0, 2, 4, 6, 8)), "z.JPG"]


def test_an_image_becomes_a_square_with_a_mask(folder):
    torch.manual_seed(3)
    mapped = MaskedImages(64, 16, 0.6)({"file_name": find_images(folder)[0]})
    assert mapped["image"].shape == (3, 64, 64) and mapped["image"].dtype == torch.uint8
    assert mapped["mask"].shape == (16, 16) and mapped["mask"].sum() == 10 * 16


def test_colours_are_red_green_blue_and_normalised(folder):
    images = MaskedImages(64, 16, 0.6)
    record = images({"file_name": find_images(folder)[0]})
    record["image"][:] = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None]
    model = PretrainingModel(small_backbone())
    seen = []
    with patch.object(model, "reconstruct", lambda x, mask: seen.append(x) or x):
        assert model([record])["loss_l1"] == 0
    expected = [(255 - 123.675) / 58.395, -116.28 / 57.12, -103.53 / 57.375]
    assert seen[0][0, :, 5, 5].tolist() == pytest.approx(expected)
    blue = cv2.imread(record["file_name"])[0, 0, 0]
    assert FixedImages([record["file_name"]], images, 0).images[0, 2, 0, 0] == blue


def with_broken(folder: Path, target: Path, broken: int) -> Path:
    """The pictures of a folder, of which the first are cut short."""
    target.mkdir()
    for number, file in enumerate(find_images(folder)):
        content = Path(file).read_bytes()
        (target / Path(file).name).write_bytes(content[:60] if number < broken else content)
    return target


def test_broken_images_are_passed_over_and_named(folder, tmp_path):
    images = with_broken(folder, tmp_path / "images", 1)
    train(images, tmp_path / "run", dataclasses.replace(RECIPE, max_broken=0.1))
    (line,) = (tmp_path / "run" / "broken_images.txt").read_text().splitlines()
    assert "0.png is damaged" in line
    with pytest.raises(BrokenImagesError, match="1 of 10 images cannot be read, 0 may .*\n.*0.png"):
        train(images, tmp_path / "run", dataclasses.replace(RECIPE, max_broken=0.0))


def test_a_folder_of_broken_images_is_refused_before_training(folder, tmp_path):
    images = with_broken(folder, tmp_path / "images", 10)
    with pytest.raises(ValueError, match="none of the 10 images can be read; the first: .*0.png"):
        train(images, tmp_path / "run")


# ---- Recipe


def test_the_learning_rate_rises_then_follows_a_cosine():
    schedule = Recipe(iterations=100, batch_size=64).schedule()
    assert schedule(0.0) == pytest.approx(0.005)
    assert schedule(0.05) == pytest.approx((0.005 + schedule(0.1)) / 2, rel=1e-3)
    assert schedule(0.5) == pytest.approx(0.525)
    assert schedule(1.0) == pytest.approx(0.05)


def test_the_learning_rate_is_the_papers_in_proportion_to_the_batch():
    assert Recipe(iterations=10, batch_size=2048).highest_lr == pytest.approx(8e-4)
    assert Recipe(iterations=10, batch_size=512).highest_lr == pytest.approx(2e-4)
    assert Recipe(iterations=10, batch_size=512, lr=0.1).highest_lr == 0.1


def test_the_mask_token_does_not_decay_but_the_decoder_does():
    groups = parameter_groups(PretrainingModel(small_backbone()), lr=1.0, weight_decay=0.05)
    decay = {name: group["weight_decay"] for group in groups for name in group["names"]}
    assert decay["mask_token"] == decay["decoder.0.bias"] == 0
    assert decay["decoder.0.weight"] == decay["backbone.patch_embed.proj.weight"] == 0.05


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"image_size": 72}, "image size must be a multiple of the mask patch 16, got 72"),
        ({"image_size": 48}, "multiple of the backbone's stride 32, got 48"),
        ({"iterations": 0}, "iterations must be 1 or more, got 0"),
        ({"batch_size": 0}, "batch_size must be 1 or more, got 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more, got -1"),
        ({"lr": 0.0}, "lr must be more than 0, got 0.0"),
        ({"warmup": 7}, "less than the 7 iterations, got 7"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, got -1.0"),
        ({"amp_dtype": "half"}, "one of bfloat16, float16, got 'half'"),
        ({"amp_dtype": "float16"}, "take bfloat16 on the CPU"),
        ({"max_broken": 1.5}, "max_broken must be in"),
        ({"max_nonfinite_steps": -1}, "max_nonfinite_steps must be 0 or more, got -1"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused(wrong, words, folder, tmp_path):
    with pytest.raises(ValueError, match=words):
        train(folder, tmp_path, dataclasses.replace(RECIPE, **wrong))


def three_images(folder: Path, output: Path) -> str:
    with pytest.raises(ValueError) as refused:
        train(folder, output, dataclasses.replace(RECIPE, batch_size=3))
    return str(refused.value)


def test_processes_need_equally_many_images(folder, tmp_path):
    words, _ = together(2, three_images, folder, tmp_path / "run", folder=tmp_path / "logs")
    assert "the 2 processes must have equally many images of a step, got a batch size of 3" in words


# ---- The tool


def pretrain_by_tool(*args) -> str:
    """The tool in this process, with a small variant; what it ended with if that was an error."""
    script = tool("pretrain_simmim")
    options = ["--device", "cpu", "--num-workers", "0", *map(str, args)]
    if "--depths" not in options and "--variant" not in options:
        options += ["--variant", "small"]
    with patch.dict(VARIANTS, {"small": SMALL}):
        try:
            script.main(options)
        except SystemExit as ended:
            return str(ended)
    return ""


def test_the_tool_trains_and_resumes(folder, tmp_path):
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 4, "--image-size", 64]
    args += ["--mask-patch", 16, "--epochs", 1.5, "--period", 2, "--amp-dtype", "bfloat16"]
    assert pretrain_by_tool(*args) == ""
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe["iterations"] == 4  # ceil(1.5 * 10 images / 4)
    assert recipe["amp_dtype"] == "bfloat16"
    first = weights(tmp_path)
    (tmp_path / "model_final.pth").unlink()
    assert pretrain_by_tool(*args, "--resume") == ""
    assert "Starting training from iteration 2" in (tmp_path / "log.txt").read_text()
    assert all(torch.equal(value, first[name]) for name, value in weights(tmp_path).items())


def test_the_tool_starts_from_weights_and_keeps_what_normalises_them(folder, tmp_path, trained):
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 2, "--image-size", 64]
    args += ["--iterations", 1, "--lr", 1e-9, "--window-size", 8, "--mask-patch", 16]
    assert pretrain_by_tool(*args, "--init", trained[1] / "model_final.pth") == ""
    content = read_file(tmp_path / "model_final.pth", extras=False)
    # Windows are no larger than the maps, of 16, 8, 4 and 2 tokens.
    assert content.metadata["window_sizes"] == [[8, 8], [8, 8], [4, 4], [2, 2]]
    assert content.metadata["pretrained_window_sizes"] == [[4, 4], [4, 4], [4, 4], [2, 2]]
    before = weights(trained[1])
    for name, value in content.value["model"].items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-6)


def test_a_variant_keeps_the_normaliser_that_its_name_stands_for(folder, tmp_path):
    """At 64 px the last map is smaller than its window."""
    named = dataclasses.replace(SMALL, window_sizes=(4,) * 4, pretrained_window_sizes=(4,) * 4)
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 2, "--image-size", 64]
    with patch.dict(VARIANTS, {"named": named}):
        assert pretrain_by_tool(*args, "--variant", "named", "--iterations", 1) == ""
        assert pretrain_by_tool(*args, "--variant", "named", "--iterations", 1, "--resume") == ""
        backbone = build_backbone("named", weights=tmp_path / "model_final.pth")
    assert backbone.pretrained_window_sizes == ((4, 4),) * 4
    notes = read_file(tmp_path / "model_final.pth").metadata
    assert notes["window_sizes"] == [[4, 4], [4, 4], [4, 4], [2, 2]]


def test_the_tool_trains_a_size_of_ones_own(folder, tmp_path):
    args = ["--images", folder, "--output", tmp_path, "--batch-size", 2, "--image-size", 64]
    args += ["--embed-dim", 8, "--depths", 1, 1, 1, "--num-heads", 1, 2, 2, "--window-size", 4]
    assert pretrain_by_tool(*args, "--iterations", 1) == ""
    outputs = ("res2", "res3", "res4")
    backbone = SwinV2(8, (1, 1, 1), num_heads=(1, 2, 2), window_size=4, out_features=outputs)
    report = load_checkpoint(backbone, tmp_path / "model_final.pth")
    assert report.missing == [] and "norms.res4.weight" in report.used


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--images", "nowhere"], "no folder 'nowhere' with images"),
        (["--images", "{empty}"], "has no images, also in the folders below it"),
        (["--image-size", 100], "multiple of the mask patch 32, got 100: take 128"),
        (["--variant", "swinv3"], "unknown variant 'swinv3'; there are: "),
        (["--init", "nowhere.pth"], "no file 'nowhere.pth'"),
        (["--variant", "small", "--depths", 1], "--variant small fixes --depths: give either"),
        (["--depths", 1, "--embed-dim", 8], "a size of your own by all of --embed-dim, --depths,"),
        (["--window-size", 4, 4], "--window-size must be one number or one per stage"),
        (["--batch-size", 0], "batch_size must be 1 or more, got 0"),
    ],
)
def test_an_error_of_the_user_is_said_before_work_starts(args, words, folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    given = ["--images", folder, "--output", tmp_path / "run", "--epochs", 1]
    args = [str(arg).format(empty=empty) for arg in args]
    assert words in pretrain_by_tool(*given, *args)
    assert not list((tmp_path / "run").glob("*.pth"))


@pytest.mark.slow
def test_the_tool_starts_two_processes(folder, tmp_path):
    line = [sys.executable, str(ROOT / "tools" / "pretrain_simmim.py"), "--num-gpus", "2"]
    line += ["--images", str(folder), "--output", str(tmp_path), "--iterations", "2"]
    line += ["--batch-size", "2", "--image-size", "64", "--num-workers", "1", "--device", "cpu"]
    line += ["--variant", "swinv2_tiny_window8_256"]
    result = subprocess.run(
        line,
        capture_output=True,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    backbone = tool("pretrain_simmim").build_backbone(
        tool("pretrain_simmim").parser().parse_args(line[4:])
    )
    assert load_checkpoint(backbone, tmp_path / "model_final.pth").complete
