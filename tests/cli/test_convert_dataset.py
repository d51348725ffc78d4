"""tools/convert_dataset.py: a file or two of COCO's format, counted, never over a user's file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenes import forms, image_names, masks_of, true_masks
from scripts import tool

from swinv2_backbone.d2.data.formats.conversion import NAMES


def run(*arguments) -> None:
    tool("convert_dataset").main([str(argument) for argument in arguments])


def content_of(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture
def labels(tmp_path) -> Path:
    return forms.labelme(tmp_path / "labels")[0]


def test_the_command_writes_every_pixel_and_prints_what_to_train_with(labels, tmp_path, capsys):
    run(labels, "--output", tmp_path / "fruit.json")
    assert masks_of(content_of(tmp_path / "fruit.json")) == true_masks()
    printed = capsys.readouterr().out
    assert f"{labels} is read as labelme, images in {labels}" in printed
    assert f"DATASETS.CUSTOM.TRAIN.JSON {tmp_path / 'fruit.json'}" in printed
    assert "MODEL.ROI_HEADS.NUM_CLASSES 2 INPUT.MASK_FORMAT bitmask" in printed


def test_the_command_divides_the_images_and_counts_both_parts(labels, tmp_path, capsys):
    run(labels, "--output", tmp_path / "fruit.json", "--split", "0.34", "--seed", "1")
    parts = [content_of(tmp_path / f"fruit_{part}.json") for part in ("train", "val")]
    assert sorted(image_names(parts[0]) + image_names(parts[1])) == ["a.png", "b.png", "empty.png"]
    assert len(parts[1]["images"]) == 1
    assert sorted(masks_of(parts[0]) + masks_of(parts[1])) == true_masks()
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fruit_train.json", "fruit_val.json"] in rows and ["images", "2", "1"] in rows
    counts = {row[0]: sum(map(int, row[1:])) for row in rows if row[0] in ("date", "fig")}
    assert counts == {"date": 3, "fig": 3}


def test_the_command_counts_the_groups_that_it_keeps_together(labels, tmp_path, capsys):
    run(labels, "--output", tmp_path / "a.json", "--split", "0.5", "--group-by", "[a-z]")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["groups", "1", "2"] in rows or ["groups", "2", "1"] in rows


def test_only_earlier_outputs_are_replaced_and_only_on_request(labels, tmp_path):
    output = tmp_path / "fruit.json"
    run(labels, "--output", output)
    with pytest.raises(SystemExit, match="exists: choose another --output, or give --overwrite"):
        run(labels, "--output", output)
    run(labels, "--output", output, "--overwrite")
    output.write_text('{"images": []}')
    with pytest.raises(SystemExit, match="was not written by this command"):
        run(labels, "--output", output, "--overwrite")
    assert output.read_text() == '{"images": []}'


def test_faults_of_the_data_end_the_command_without_a_file(tmp_path):
    path, images = forms.cvat(tmp_path)
    (images / "a.png").unlink()
    with pytest.raises(SystemExit, match="missing image files: a.png"):
        run(path, "--output", tmp_path / "fruit.json")
    assert not (tmp_path / "fruit.json").exists()


def test_crowds_become_objects_on_request(tmp_path):
    path, _ = forms.coco(tmp_path, crowd=1)
    run(path, "--output", tmp_path / "fruit.json", "--crowds", "objects")
    content = content_of(tmp_path / "fruit.json")
    assert not any(one["iscrowd"] for one in content["annotations"])
    assert masks_of(content) == true_masks()


def test_the_choices_are_the_formats_of_the_library():
    assert tool("convert_dataset").FORMATS == NAMES


def test_options_of_a_split_need_one(labels, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(labels, "--output", tmp_path / "fruit.json", "--group-by", "folder")
    assert "--seed and --group-by go with --split" in capsys.readouterr().err
