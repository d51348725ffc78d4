"""tools/run_published.py: rows, checks, hours, tables, and one row of each suite end to end."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from published_sets import write_ade20k, write_coco, write_imagenet
from publishers import PUBLISHERS, native_state
from scripts import ROOT, tool
from small_configs import SMALL, STEMS

sys.path.insert(0, str(ROOT / "tools"))
from published import data, estimate, report, running  # noqa: E402
from published.rows import PAPER, SUITES, choose  # noqa: E402
from results.marks import fill_in, read_numbers  # noqa: E402

from swinv2_backbone.recipes import config_path  # noqa: E402
from swinv2_backbone.variants import RELEASES, VARIANTS, Variant  # noqa: E402

run_published = tool("run_published")

TRAINED = [row for suite in ("coco", "ade20k") for row in SUITES[suite]]
TINY_COCO = ("coco", "retinanet_swinv2_tiny")
SHORT = (
    *("MODEL.DEVICE", "cpu", *SMALL, "SOLVER.MAX_ITER", "3", "SOLVER.WARMUP_ITERS", "1"),
    *("SOLVER.STEPS", "()", "SOLVER.AMP.ENABLED", "False", "TEST.EVAL_PERIOD", "0"),
    *("TEST.AUG.MIN_SIZES", "(48, 64)"),
)


@pytest.fixture
def docs(tmp_path, monkeypatch) -> Path:
    """Write the tables into a copy of docs/."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "PUBLISHED.md").write_text((ROOT / "docs/PUBLISHED.md").read_text(encoding="utf-8"))
    monkeypatch.setattr(run_published, "DOCS", folder)
    return folder


def header_of(recipe: str) -> str:
    """Return the comment at the top of a config, without line breaks."""
    lines = config_path(recipe).read_text(encoding="utf-8").splitlines()
    return " ".join(line[1:].strip() for line in lines if line.startswith("#"))


def entry(suite: str, name: str, **values) -> dict:
    """Return what a run on the published set leaves."""
    (row,) = choose(suite, [name])
    metrics = {title: 12.34 for title in row.metrics}
    found = {"row": name, "suite": suite, "changes": "", "images": data.full_sizes(suite)}
    return found | {"metrics": metrics} | values


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_published_values_are_those_of_the_header(row):
    header = header_of(row.recipe)
    published = header.partition("Published:")[2]
    assert all(re.search(rf"\b{value}\b", published) for value in row.published.values())
    if row.of.startswith(PAPER):
        assert "Recipe: paper." in header
    else:
        assert row.of in published
    for key, value in zip(row.changes[::2], row.changes[1::2]):
        assert f"{key} {value}" in published


def test_every_recipe_with_a_published_number_has_a_row():
    numbered = {one for one in STEMS if "Published: nothing" not in header_of(one)}
    assert {row.recipe for row in TRAINED} == numbered


def test_imagenet_has_every_model_with_a_published_accuracy():
    names = [row.recipe for row in SUITES["imagenet"]]
    assert len(names) == 10
    assert all(RELEASES[name].num_classes == 1000 for name in names)


def test_names_of_rows_are_unique_and_checked():
    names = [row.name for rows in SUITES.values() for row in rows]
    assert len(set(names)) == len(names)
    with pytest.raises(ValueError, match="--rows resnet: suite ade20k has the rows upernet_"):
        choose("ade20k", ["resnet"])


def test_missing_data_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no .*coco/train2017: unpack train2017.zip, .*--d"
    ):
        data.check("coco", tmp_path)
    write_coco(tmp_path, train=2, val=1)
    assert data.check("coco", tmp_path) == {"train": 2, "val": 1}
    (tmp_path / "coco/annotations/instances_val2017.json").unlink()
    with pytest.raises(FileNotFoundError, match="instances_val2017.json"):
        data.check("coco", tmp_path)
    write_ade20k(tmp_path, train=1, val=1)
    (file,) = (tmp_path / "ADEChallengeData2016/images/validation").iterdir()
    file.unlink()
    with pytest.raises(ValueError, match=r"images/validation has no images .*ADEChallengeData2016"):
        data.check("ade20k", tmp_path)


def test_imagenet_needs_its_class_folders(tmp_path):
    folder = tmp_path / "imagenet/val"
    (folder / "n01440764").mkdir(parents=True)
    with pytest.raises(
        ValueError, match="has 1 class folders, not 1000: unpack ILSVRC2012_img_val"
    ):
        data.check("imagenet", tmp_path)
    (folder / "tench").mkdir()
    with pytest.raises(ValueError, match="tench is no class of ImageNet"):
        data.check("imagenet", tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("coco --num-gpus 0", "--num-gpus must be 1 or more, got 0"),
        ("coco --num-gpus 4096", "--num-gpus 4096, but PyTorch sees"),
        ("coco SOLVER.MAX_ITER", "pairs KEY VALUE, got SOLVER.MAX_ITER"),
        ("coco SOLVER.MAXITER 3", "SOLVER.MAXITER"),
        ("coco OUTPUT_DIR here", "OUTPUT_DIR here: --output gives the folder"),
        ("imagenet SOLVER.MAX_ITER 3", "trains nothing .* omit SOLVER.MAX_ITER 3"),
        ("imagenet --num-gpus 2", "trains nothing and uses one GPU: omit --num-gpus 2"),
    ],
)
def test_a_wrong_command_is_refused_before_the_data_is_read(arguments, message, monkeypatch):
    monkeypatch.setattr(run_published, "prepare_data", lambda settings: pytest.fail("was read"))
    with pytest.raises(SystemExit, match=message):
        run_published.main(["--suite", *arguments.split()])


def test_hours_are_operations_over_rate():
    work = estimate.Work(iterations=1000, images=16, size=(8, 8), multiply_adds=10**9, passes=3)
    assert work.hours(gpus=8, rate=1e12) == pytest.approx(96e12 / 8e12 / 3600)
    rate = estimate.Rate("a GPU", milliseconds=100.0, multiply_adds=10**10)
    assert rate.flops == pytest.approx(2 * 10**10 * 2 * 3 / 0.1)


@pytest.mark.parametrize(
    "values, size",
    [
        ({"LSJ": True}, (1024, 1024)),
        ({"CROP": True}, (512, 640)),
        ({}, (600, 1000)),
    ],
)
def test_the_size_of_training_is_the_recipe_s(values, size):
    node = {"MIN_SIZE_TRAIN": (400, 800), "MAX_SIZE_TRAIN": 1333}
    node |= {"LSJ": {"ENABLED": "LSJ" in values, "SIZE": 1024}}
    node |= {"CROP": {"ENABLED": "CROP" in values, "SIZE": (512, 640)}}
    assert estimate.training_size(CfgNode({"INPUT": node})) == size


def test_the_document_has_the_estimated_hours_and_the_tables_of_the_file():
    page = ROOT / "docs/PUBLISHED.md"
    text = page.read_text(encoding="utf-8")
    *measured, line = estimate.estimate(choose("ade20k", ["upernet_swinv2_tiny_ade20k"]), 8).split(
        "\n"
    )
    assert line in text and all(part in text for part in measured)
    numbers = read_numbers(ROOT / "docs/published.json")
    for suite in SUITES:
        assert fill_in(page, {suite: report.table(suite, numbers[suite])}) == text


def test_only_the_recipe_on_the_published_set_fills_the_table(docs, tmp_path):
    suite, name = TINY_COCO
    runs = {
        name: entry(suite, name),
        f"{name}+1": entry(suite, name, changes="SOLVER.MAX_ITER 3", metrics={"box AP": 98.0}),
        f"{name}+2": entry(suite, name, images={"train": 118, "val": 5}, metrics={"box AP": 99.0}),
    }
    for folder, content in runs.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "published.json").write_text(json.dumps(content), encoding="utf-8")
    run_published.main(["--suite", suite, "--output", str(tmp_path), "--report"])
    written = json.loads((docs / "published.json").read_text(encoding="utf-8"))
    assert written == {suite: runs}
    text = (docs / "PUBLISHED.md").read_text(encoding="utf-8")
    assert "SwinV2-T | box AP 12.3 |" in text and "box AP 9" not in text


def test_a_trial_never_has_the_folder_of_the_recipe(tmp_path):
    (row,), full = choose(*TINY_COCO[:1], [TINY_COCO[1]]), data.full_sizes("coco")
    exact = running.Settings("coco", tmp_path, tmp_path, 1)
    changed = running.Settings("coco", tmp_path, tmp_path, 1, ("SEED", "1"))
    folders = {
        running.folder_of(row, exact, full).name,
        running.folder_of(row, changed, full).name,
        running.folder_of(row, exact, full | {"val": 5}).name,
        running.folder_of(row, changed, full | {"val": 5}).name,
    }
    assert len(folders) == 4 and row.name in folders


def test_hours_are_summed_over_the_sessions(tmp_path):
    lines = [{"iteration": i, "time": 36.0} for i in (19, 39, 29, 49)] + [{"iteration": 49}]
    text = "\n".join(map(json.dumps, lines))
    (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
    assert running._hours(tmp_path) == pytest.approx(36.0 * 60 / 3600)


def run_row(capfd, docs: Path, suite: str, name: str, folder: Path, *changes: str) -> dict:
    """Run a row twice; return its only entry."""
    common = ["--suite", suite, "--data", str(folder / "sets"), "--output", str(folder / "out")]
    common += ["--rows", name, "--num-gpus", "1", *changes]
    run_published.main(common)
    before = (docs / "published.json").read_bytes()
    capfd.readouterr()
    run_published.main(common)
    assert f"{name}: done" in capfd.readouterr().out
    assert (docs / "published.json").read_bytes() == before
    (found,) = json.loads(before)[suite].values()
    assert found["changes"] == shlex.join(changes) and found["row"] == name
    committed = (ROOT / "docs/PUBLISHED.md").read_text(encoding="utf-8")
    assert (docs / "PUBLISHED.md").read_text(encoding="utf-8") == committed
    return found


@pytest.mark.slow
def test_a_row_of_coco_runs_from_the_data_to_the_file(docs, tmp_path, capfd):
    write_coco(tmp_path / "sets")
    name = "cascade_mask_rcnn_swinv2_tiny_window32"
    found = run_row(capfd, docs, "coco", name, tmp_path, *SHORT)
    assert found["images"] == {"train": 118, "val": 5}
    assert set(found["metrics"]) == {"box AP", "mask AP"}


@pytest.mark.slow
def test_a_row_of_ade20k_runs_from_the_data_to_the_file(docs, tmp_path, capfd):
    write_ade20k(tmp_path / "sets")
    found = run_row(capfd, docs, "ade20k", "upernet_swinv2_large_ade20k", tmp_path, *SHORT)
    assert found["images"] == {"train": 20, "val": 2}
    assert found["metrics"]["mIoU"] >= 0


@pytest.mark.slow
def test_a_row_of_imagenet_runs_from_the_data_to_the_file(docs, tmp_path, capfd, monkeypatch):
    """The published weights are replaced by random ones of a small model."""
    name = "swinv2_tiny_window8_256"
    small = Variant(16, (1, 1, 1, 1), (1, 2, 4, 8), (4, 4, 4, 2), (4, 4, 4, 2), 64)
    monkeypatch.setitem(VARIANTS, name, small)
    torch.save(PUBLISHERS["mmpretrain"](native_state(name), name), tmp_path / "small.pth")
    monkeypatch.setattr("swinv2_backbone.build.fetch", lambda source: tmp_path / "small.pth")
    monkeypatch.setattr("swinv2_backbone.checkpoints.load.fetch", Path)
    write_imagenet(tmp_path / "sets")
    found = run_row(capfd, docs, "imagenet", name, tmp_path)
    assert found["images"] == {"val": 1000}
    assert 0 <= found["metrics"]["top-1"] <= found["metrics"]["top-5"]
