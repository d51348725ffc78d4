"""tools/run_results.py: sets from clones, comparable backbones, trainings of one length, tables."""

from __future__ import annotations

import json
import sys
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
from results import plan, report, training  # noqa: E402
from results.backbones import BACKBONES, parameters  # noqa: E402
from results.sets import BY_NAME  # noqa: E402

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
    for name in ("nuclei_train", "nuclei_val", "cards_train", "cards_val"):
        if name in DatasetCatalog:
            DatasetCatalog.pop(name)
            MetadataCatalog.pop(name)


@pytest.fixture
def data(tmp_path) -> Path:
    """Return clones in the forms of the two repositories, with generated pictures."""
    rng = np.random.default_rng(0)
    for number in range(8):
        record = tmp_path / "data/nuclei/stage1_train" / f"record{number}"
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
    for part, count in (("train", 6), ("test", 6)):
        folder = tmp_path / "data/cards/images" / part
        folder.mkdir(parents=True)
        for number in range(count):
            name = f"{part}{number}.JPG"
            pixels = rng.integers(0, 255, (80, 60, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name, format="JPEG")
            text = CARD.format(name=name, label=labels[number])
            (folder / name).with_suffix(".xml").write_text(text, encoding="utf-8")
    return tmp_path / "data"


def test_backbones_have_about_equally_many_parameters():
    counts = []
    for use in BACKBONES.values():
        cfg = load_config(str(training.CONFIG), ["MODEL.DEVICE", "cpu"])
        use(cfg)
        fpn = build_backbone(cfg)
        features = fpn(torch.rand(1, 3, 64, 96))
        assert [tuple(features[f"p{level}"].shape[2:]) for level in (2, 5)] == [(16, 24), (2, 3)]
        counts.append(parameters(fpn.bottom_up))
    assert max(counts) < 1.05 * min(counts)


@pytest.mark.parametrize("name, objects", [("nuclei", 18), ("cards", 6)])
def test_a_set_is_made_of_its_clone(name, objects, data, tmp_path):
    training.prepare(tmp_path, name=name, data=str(data))
    train = json.loads((tmp_path / f"sets/{name}/train.json").read_text(encoding="utf-8"))
    val = json.loads((tmp_path / f"sets/{name}/val.json").read_text(encoding="utf-8"))
    assert len(train["annotations"]) == objects
    assert len(train["categories"]) == BY_NAME[name].classes
    files = [{image["file_name"] for image in part["images"]} for part in (train, val)]
    assert files[0] and files[1] and not files[0] & files[1]


def test_a_missing_clone_is_named_with_the_command(tmp_path):
    with pytest.raises(SystemExit, match=f"git clone --depth 1 {BY_NAME['cards'].url}"):
        run_results.main(["--data", str(tmp_path), "--sets", "cards"])


def test_a_report_without_runs_has_what_is_done(tmp_path, monkeypatch):
    document = tmp_path / "RESULTS.md"
    document.write_text("<!-- results: cards -->\n<!-- end -->\n", encoding="utf-8")
    monkeypatch.setattr(run_results, "DOCS", tmp_path)
    monkeypatch.setattr(run_results, "NUMBERS", tmp_path / "results.json")
    run_results.NUMBERS.write_text('{"earlier": {}}', encoding="utf-8")
    (job,) = [
        job
        for job in plan.jobs(["cards"], str(tmp_path / "data"))
        if job.name == plan.trained("cards", "SwinV2, window 8", 1)
    ]
    numbers = {"bbox_ap": 12.345, "iterations": 9, "peak_mb": 8.0}
    content = {"options": job.options, "result": numbers | {"minutes": 4.0}}
    (tmp_path / f"{job.name}.json").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.setattr(run_results, "fill_in", lambda path, all_: report.fill_in(path, kept(all_)))
    common = ["--data", str(tmp_path / "data"), "--output", str(tmp_path)]
    run_results.main([*common, "--sets", "cards", "--report"])
    assert "| SwinV2, window 8 | 1 | 12.3 |" in document.read_text(encoding="utf-8")
    written = json.loads(run_results.NUMBERS.read_text(encoding="utf-8"))
    assert set(written) == {"earlier", "cards"}
    assert "minutes" not in written["cards"]["SwinV2, window 8"][0]


def kept(numbers: dict) -> dict:
    """Return the numbers of the sets that exist."""
    return {name: own for name, own in numbers.items() if name in BY_NAME}


def test_the_list_needs_no_clones(capsys):
    run_results.main(["--list"])
    printed = capsys.readouterr().out
    assert all(one.url in printed and one.licence in printed for one in BY_NAME.values())


@pytest.mark.slow
def test_a_comparison_runs_and_fills_the_document(data, tmp_path):
    todo = plan.jobs(["nuclei"], str(data), seconds=3.0, seeds=(0, 1))
    kept = [
        job
        for job in todo
        if "resnet" in job.name or "window8" in job.name or "train" not in job.name
    ]
    found = run(kept, tmp_path / "output", 2)
    numbers = report.compact(found, ["nuclei"], (0, 1))
    assert set(numbers["nuclei"]) == {"ResNet-50, narrow", "SwinV2, window 8"}
    for runs in numbers["nuclei"].values():
        assert len(runs) == 2 and all(one["iterations"] >= 1 for one in runs)
    text = report.fill_in(ROOT / "docs/RESULTS.md", numbers)
    assert "| SwinV2, window 8 |" in text and text.count("<!-- end -->") == 2


def test_tables_show_means_and_deviations(tmp_path):
    one = {"bbox_ap": 10.0, "segm_ap": 20.0, "iterations": 7, "peak_mb": 900.0}
    text = report.table("nuclei", {"SwinV2, window 8": [one, {**one, "bbox_ap": 14.0}]})
    assert "| SwinV2, window 8 | 2 | 12.0 ± 2.8 | 20.0 | 7 | 900 |" in text
    document = tmp_path / "doc.md"
    document.write_text("a\n<!-- results: nuclei -->\nold\n<!-- end -->\nb\n", encoding="utf-8")
    filled = report.fill_in(document, {"nuclei": {"SwinV2, window 8": [one]}})
    assert filled.startswith("a\n") and filled.endswith("<!-- end -->\nb\n") and "old" not in filled
    with pytest.raises(ValueError, match="has no marks '<!-- results: cards -->'"):
        report.fill_in(document, {"cards": {}})
