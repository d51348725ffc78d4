"""tools/run_results.py: sets from clones, comparable trainings, effects of settings, tables."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_backbone
from PIL import Image
from scripts import ROOT, tool

sys.path.insert(0, str(ROOT / "tools"))
from experiments.jobs import run  # noqa: E402
from results import plan, report, screening, training  # noqa: E402
from results.arms import BACKBONES, GROUPS, RECIPES, SCREENING  # noqa: E402
from results.marks import fill_in  # noqa: E402
from results.sets import BY_NAME, DEFECTS, SETS  # noqa: E402
from results.sizes import FULL, SMALL  # noqa: E402

from swinv2_backbone.d2.config.yacs import load_config  # noqa: E402

run_results = tool("run_results")

CARD = """<annotation><filename>{name}</filename>
<size><width>60</width><height>80</height><depth>3</depth></size>
<object><name>{label}</name><difficult>0</difficult>
<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>41</xmax><ymax>61</ymax></bndbox></object>
</annotation>"""


@pytest.fixture(autouse=True)
def forgotten_sets():
    yield
    for name in [f"{one.name}_{split}" for one in SETS for split in ("train", "val")]:
        if name in DatasetCatalog:
            DatasetCatalog.pop(name)
            MetadataCatalog.pop(name)


@pytest.fixture
def data(tmp_path) -> Path:
    """Return clones in the forms of the repositories, with generated pictures."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    for number in range(8):
        record = folder / "nuclei/stage1_train" / f"record{number}"
        for part in ("images", "masks"):
            (record / part).mkdir(parents=True)
        pixels = rng.integers(0, 60, (70, 90, 3), dtype=np.uint8)
        for nucleus in range(3):
            mask = np.zeros((70, 90), dtype=np.uint8)
            mask[20:40, 10 + 25 * nucleus : 28 + 25 * nucleus] = 255
            pixels[mask > 0] = 200
            Image.fromarray(mask).save(record / "masks" / f"{nucleus}.png")
        Image.fromarray(pixels).save(record / "images" / f"record{number}.png")
    labels = ("nine", "ten", "jack", "queen", "king", "ace")
    for part in ("train", "test"):
        cards = folder / "cards/images" / part
        for number, label in enumerate(labels):
            _photo(rng, cards / f"{part}{number}.JPG", label)
    for number in range(10):
        _photo(rng, folder / "raccoons/images" / f"{number}.jpg", "raccoon")
        name = folder / "raccoons/annotations" / f"{number}.xml"
        name.parent.mkdir(exist_ok=True)
        (folder / "raccoons/images" / f"{number}.xml").rename(name)
    _nuts(rng, folder / "nuts/data")
    for defect in DEFECTS:
        tiles = folder / f"tiles/MT_{defect}/Imgs"
        tiles.mkdir(parents=True)
        for number in range(4):
            mask = np.zeros((50, 60), dtype=np.uint8)
            mask[10:20, 10:30], mask[20, 10:30] = 255, 40  # soft at the edge, as theirs
            Image.fromarray(mask).save(tiles / f"{defect}{number}.png")
            Image.fromarray(rng.integers(0, 255, (50, 60), dtype=np.uint8)).save(
                tiles / f"{defect}{number}.jpg"
            )
    return folder


def _photo(rng: np.random.Generator, file: Path, label: str) -> None:
    """Write a photograph with one object, and its XML."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 255, (80, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, format="JPEG")
    text = CARD.format(name=file.name, label=label)
    file.with_suffix(".xml").write_text(text, encoding="utf-8")


def _nuts(rng: np.random.Generator, folder: Path) -> None:
    folder.mkdir(parents=True)
    images, annotations = [], []
    for number in range(9):
        pixels = rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 60, "width": 80})
        for category in (1, 2, 3):
            box = [20 * category, 10, 15, 30]
            x, y, width, height = box
            outline = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": number, "category_id": category}
                | {"bbox": box, "area": width * height, "iscrowd": 0, "segmentation": [outline]}
            )
    categories = [{"id": key, "name": name} for key, name in enumerate(("date", "fig", "nut"), 1)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "trainval.json").write_text(json.dumps(content), encoding="utf-8")


# Arms


@pytest.mark.parametrize("size, spread", [(SMALL, 1.05), (FULL, 1.25)])
@pytest.mark.parametrize("kind", ["objects", "semantic"])
def test_backbones_have_about_equally_many_parameters(size, spread, kind):
    counts = []
    for arm in GROUPS[BACKBONES].values():
        cfg = small_config(getattr(size, kind), size)
        arm.change(cfg, BY_NAME["nuclei"])
        backbone = build_backbone(cfg)
        features = backbone(torch.rand(1, 3, 64, 96))
        finest, coarsest = ("p2", "p5") if "p2" in features else ("res2", "res5")
        assert features[finest].shape[2:] == (16, 24) and features[coarsest].shape[2:] == (2, 3)
        counts.append(sum(p.numel() for p in getattr(backbone, "bottom_up", backbone).parameters()))
    assert max(counts) < spread * min(counts)
    assert counts[0] == pytest.approx({SMALL: 2.3e6, FULL: 23.5e6}[size], rel=0.01)  # ResNet-50


def small_config(recipe: str, size=SMALL):
    """Return a recipe for the CPU, with the SwinV2 of a size."""
    cfg = load_config(str(training.CONFIGS / recipe), [*size.changes, "MODEL.DEVICE", "cpu"])
    node = cfg.MODEL.SWINV2
    node.EMBED_DIM, node.DEPTHS, node.NUM_HEADS = size.embed_dim, size.depths, size.num_heads
    return cfg


def test_every_setting_of_the_screening_changes_the_config_and_nothing_else_does():
    own = BY_NAME["cards"]

    def changed(arm) -> str:
        cfg = small_config(SMALL.objects)
        arm(cfg, own)
        return cfg.dump()

    plain = changed(screening.change_to([]))
    assert changed(screening.Run("", 0, (-1,) * len(screening.SETTINGS)).change) == plain
    for number, setting in enumerate(screening.SETTINGS):
        levels = [-1] * len(screening.SETTINGS)
        levels[number] = 1
        one = screening.Run("", 0, tuple(levels))
        assert (changed(one.change) != plain) == (setting.title != screening.START)
        assert one.pretrained == (setting.title == screening.START)


def test_anchors_grow_with_the_images():
    cfg = small_config(SMALL.objects)
    own = BY_NAME["cards"]
    screening.Run("", 0, (-1,) * 8 + (1, -1)).change(cfg, own)
    small = [size for (size,) in cfg.MODEL.ANCHOR_GENERATOR.SIZES]
    screening.Run("", 0, (1,) + (-1,) * 7 + (1, -1)).change(cfg, own)
    assert [size for (size,) in cfg.MODEL.ANCHOR_GENERATOR.SIZES] == list(own.anchors)
    assert small == [round(size * 2 / 3) for size in own.anchors]


def test_the_recipe_for_small_data_has_the_settings_that_were_evaluated():
    """At full size: two thirds of the plain recipe's pixels, window 8, and no jitter or average."""
    plain, small = (
        load_config(str(training.CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "cpu"])
        for name in ("mask_rcnn_swinv2", "mask_rcnn_swinv2_small_data")
    )
    assert ("image size" in screening.PLAIN, "image size" in screening.SMALL_DATA) == (True, False)
    assert pytest.approx(plain.INPUT.MIN_SIZE_TEST * 2 / 3, rel=0.05) == small.INPUT.MIN_SIZE_TEST
    for cfg, titles in ((plain, screening.PLAIN), (small, screening.SMALL_DATA)):
        assert (16 if "window" in titles else 8) == cfg.MODEL.SWINV2.WINDOW_SIZE
        assert ("large-scale jitter" in titles) == cfg.INPUT.LSJ.ENABLED
        assert ("averaged weights" in titles) == cfg.SOLVER.EMA.ENABLED
        assert (cfg.SOLVER.LAYER_DECAY < 1) == ("layer decay" in titles)
        assert (cfg.MODEL.SWINV2.FROZEN_STAGES > -1) == ("frozen" in titles)


# Effects


def test_the_design_is_balanced_in_every_block_and_its_settings_are_orthogonal():
    runs = screening.design()
    assert len(runs) == 24 and len({one.title for one in runs}) == 24
    for block in range(screening.BLOCKS):
        levels = np.array([one.levels for one in runs if one.block == block])
        assert (levels.T @ levels == 12 * np.eye(len(screening.SETTINGS))).all()
        assert (levels.sum(0) == 0).all()


def test_effects_are_found_beside_a_block_and_a_joint_effect_of_two_settings():
    aps = {
        one.title: 20
        + 5 * one.block
        + 3 * one.levels[2]
        - 1 * one.levels[4]
        # The design keeps joint effects of two out of all effects, not out of their intervals.
        + 2 * one.levels[0] * one.levels[1]
        for one in screening.design()
    }
    values = [one.value for one in screening.effects(aps)]
    assert values == pytest.approx([0, 0, 6, 0, -2, 0, 0, 0, 0, 0], abs=1e-9)
    first = {one.title: aps[one.title] for one in screening.design() if one.block == 0}
    assert len(screening.effects(first)) == len(screening.SETTINGS)


def test_intervals_hold_the_effect_in_95_of_100_cases():
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        aps = {one.title: one.levels[3] + rng.normal() for one in screening.design()}
        held += [
            abs(one.value - 2 * (one.title == "large-scale jitter")) < one.margin
            for one in screening.effects(aps)
        ]
    assert 0.93 < np.mean(held) < 0.97


def test_effects_of_too_few_runs_are_refused():
    aps = {one.title: 1.0 for one in screening.design()[:9]}
    with pytest.raises(ValueError, match="9 runs do not determine 10 effects: run the rest"):
        screening.effects(aps)


# Sets


@pytest.mark.parametrize(
    "name, objects", [("nuclei", 18), ("cards", 6), ("nuts", 18), ("raccoons", 8)]
)
def test_a_set_is_made_of_its_clone(name, objects, data, tmp_path):
    for _ in range(2):  # again, over what is there
        training.prepare(tmp_path, name=name, data=str(data))
    place = tmp_path / "sets" / name
    train, val = (
        json.loads((place / f"{split}.json").read_text(encoding="utf-8"))
        for split in ("train", "val")
    )
    assert len(train["annotations"]) == objects
    assert len(train["categories"]) == BY_NAME[name].classes
    files = [{image["file_name"] for image in part["images"]} for part in (train, val)]
    assert files[0] and files[1] and not files[0] & files[1]
    for split, names in zip(("train", "val"), files):
        assert all((place / split / name).is_file() for name in names)


def test_tiles_have_a_value_for_each_defect_and_a_quarter_of_each_is_tested(data, tmp_path):
    training.prepare(tmp_path, name="tiles", data=str(data))
    place = tmp_path / "sets/tiles"
    names = (place / "classes.txt").read_text(encoding="utf-8").split()
    assert len(names) == BY_NAME["tiles"].classes
    for split, count in (("train", 3), ("val", 1)):
        for value, defect in enumerate(DEFECTS, 1):
            labels = sorted((place / f"{split}_labels").glob(f"{defect}*.png"))
            assert len(labels) == count and names[value] == defect.lower()
            assert np.bincount(np.asarray(Image.open(labels[0])).ravel())[value] == 200
            assert (place / split / labels[0].name).is_file()


def test_pixels_of_nuclei_are_those_of_all_masks(data, tmp_path):
    training.prepare(tmp_path, name="nuclei_pixels", data=str(data))
    place = tmp_path / "sets/nuclei_pixels"
    assert [len(list((place / part).iterdir())) for part in ("train", "val")] == [6, 2]
    labels = np.asarray(Image.open(place / "train_labels/record0.png"))
    assert np.bincount(labels.ravel()).tolist() == [70 * 90 - 3 * 20 * 18, 3 * 20 * 18]


@pytest.mark.parametrize("name", ["cards", "tiles"])
def test_models_of_full_size_see_512_pixels_in_bfloat16(name, data, tmp_path, monkeypatch):
    on_cpu = replace(FULL, changes=(*FULL.changes, "MODEL.DEVICE", "cpu"))
    monkeypatch.setattr(training, "FULL", on_cpu)
    training.prepare(tmp_path, name=name, data=str(data))
    cfg = training._config(tmp_path, str(tmp_path), name, "SwinV2, window 16", 1, 50, full=True)
    assert cfg.INPUT.MIN_SIZE_TEST == 512 and cfg.MODEL.SWINV2.WINDOW_SIZE == 16
    assert (cfg.SOLVER.AMP.ENABLED, cfg.SOLVER.AMP.DTYPE) == (True, "bfloat16")
    assert not cfg.MODEL.WEIGHTS and cfg.SOLVER.MAX_ITER == 50 and cfg.SEED == 1
    if name == "cards":
        sizes = [size for (size,) in cfg.MODEL.ANCHOR_GENERATOR.SIZES]
        assert sizes == [round(8 / 3 * size) for size in BY_NAME["cards"].anchors]


def test_a_missing_clone_is_named_with_the_command(tmp_path):
    with pytest.raises(SystemExit, match=f"git clone --depth 1 {BY_NAME['cards'].url}"):
        run_results.main(["--data", str(tmp_path), "--sets", "cards"])


# Reports


def test_a_report_without_runs_has_what_is_done(tmp_path, monkeypatch):
    document = tmp_path / "RESULTS.md"
    document.write_text("<!-- results: cards -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(run_results, "DOCS", tmp_path)
    monkeypatch.setattr(run_results, "NUMBERS", tmp_path / "results.json")
    earlier = '{"nuclei": {"forwards": {}}, "cards": {"other": {}, "screening": {"a": 1.0}}}'
    run_results.NUMBERS.write_text(earlier, encoding="utf-8")
    jobs = {job.name: job for job in plan.jobs(["cards"], str(tmp_path / "data"))}
    done = {
        training.trained("cards", "SwinV2, window 8", 1): {
            "bbox_ap": 12.345,
            "iterations": 9,
            "images_per_second": 8.0,
            "peak_mb": 8.0,
        },
        training.trained("cards", "screening 13", 1): {"bbox_ap": 4.0},
        training.forwards_of("cards", BACKBONES): {
            "forwards": dict.fromkeys(GROUPS[BACKBONES], 0.05)
        },
    }
    for name, numbers in done.items():
        content = {"options": jobs[name].options, "result": numbers | {"minutes": 4.0}}
        (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    common = ["--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    run_results.main([*common, "--sets", "cards", "--report"])
    assert "| SwinV2, window 8 | 1 | 12.3 | 9 | 8.0 | 20.0 | 8 |" in document.read_text("utf-8")
    written = json.loads(run_results.NUMBERS.read_text(encoding="utf-8"))
    assert set(written) == {"nuclei", "cards"}
    assert written["cards"][SCREENING] == {"a": 1.0, "screening 13": 4.0}
    assert written["cards"]["other"] == {}  # a part that was not looked for
    assert "minutes" not in written["cards"][BACKBONES]["SwinV2, window 8"][0]


def test_full_size_is_an_option_of_every_job_with_a_model():
    small, full = (
        {job.name: job.options for job in plan.jobs(["cards"], "data", full=full)}
        for full in (False, True)
    )
    sized = {name for name in small if full[name] == small[name] | {"full": True}}
    assert {name for name in small if name not in sized} == {"set_cards", "pictures_cards"}


def test_parts_can_be_chosen():
    names = {
        part: {job.name for job in plan.jobs(["cards", "nuts"], "data", parts=[part])}
        for part in plan.PARTS
    }
    assert any("resnet" in name for name in names[plan.COMPARISON])
    assert any("screening24" in name for name in names[SCREENING])
    assert any("smalldata" in name for name in names[RECIPES])
    assert not any("screening" in name for name in names[plan.COMPARISON] | names[RECIPES])
    assert {"set_cards", "simmim_nuts"} <= names[plan.COMPARISON] & names[SCREENING]


def test_fewer_runs_do_not_replace_more():
    earlier = {"cards": {BACKBONES: {"a": [1, 2, 3], "b": [1]}}, "nuts": {}}
    found = report.merged(earlier, {"cards": {BACKBONES: {"a": [4], "b": [5]}}})
    assert found == {"cards": {BACKBONES: {"a": [1, 2, 3], "b": [5]}}, "nuts": {}}


def test_the_list_needs_no_clones(capsys):
    run_results.main(["--list"])
    printed = capsys.readouterr().out
    assert all(one.url in printed and one.licence in printed for one in BY_NAME.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuclei", "tiles"])
def test_a_comparison_runs_and_fills_the_document(name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "MASKED_ITERATIONS", 2)
    todo = plan.jobs([name], str(data), parts=[plan.COMPARISON], seconds=3.0, seeds=(0, 1))
    kept = [job for job in todo if "swinv1" not in job.name and "window16" not in job.name]
    found = run(kept, tmp_path / "output", 2)
    numbers = report.compact(found, [name], (0, 1))
    assert set(numbers[name][BACKBONES]) == {
        "ResNet-50",
        "SwinV2, window 8",
        "SwinV2, window 8, SimMIM",
    }
    for runs in numbers[name][BACKBONES].values():
        assert len(runs) == 2 and all(one["iterations"] >= 1 for one in runs)
    text = fill_in(ROOT / "docs/RESULTS.md", report.tables(numbers))
    assert "| SwinV2, window 8, SimMIM |" in text
    # Predictions stay, so that they can be analyzed.
    output = tmp_path / "output" / "runs" / training.trained(name, "SwinV2, window 8", 0)
    tool("analyze_results").main(
        ["--config-file", str(output / "config.yaml"), "--output", str(tmp_path / "analysis")]
    )
    assert json.loads((tmp_path / "analysis/results.json").read_text(encoding="utf-8"))


def test_a_comparison_shows_means_and_deviations():
    one = {"bbox_ap": 10.0, "segm_ap": 20.0, "images_per_second": 9.0}
    one |= {"iterations": 7, "peak_mb": 900.0}
    arms = {"SwinV2, window 8": [one, {**one, "bbox_ap": 14.0}]}
    text = report.comparison("nuclei", arms, {})
    assert "| SwinV2, window 8 | 2 | 12.0 ± 2.8 | 20.0 | 7 | 9.0 | 900 |" in text
    semantic = report.comparison("tiles", {"a": [{"miou": 50.0, **one}]}, {"a": 12.34})
    assert "mIoU" in semantic and "| 12.3 |" in semantic


def test_effects_whose_interval_is_without_zero_are_bold():
    rng = np.random.default_rng(1)
    aps = {one.title: 9 * one.levels[0] + rng.normal() for one in screening.design()}
    lines = report.screening({"cards": aps}).splitlines()
    assert lines[2].startswith("| image size | 128 | 192 | **+1")
    assert sum("**" in line for line in lines) <= 2


def test_a_document_without_the_marks_of_a_table_is_refused(tmp_path):
    document = tmp_path / "doc.md"
    document.write_text("a\n<!-- results: cards -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
    filled = fill_in(document, {"cards": "| new |"})
    assert filled == "a\n<!-- results: cards -->\n| new |\n<!-- end -->\nb\n"
    with pytest.raises(ValueError, match="has no marks '<!-- results: nuclei -->'"):
        fill_in(document, {"nuclei": "| new |"})
