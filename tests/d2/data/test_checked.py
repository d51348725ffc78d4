"""A file is checked once, and its kept result is used only while everything is unchanged."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from swinv2_backbone.d2.data.datasets import checked
from swinv2_backbone.d2.data.datasets.coco import register_coco

SQUARE = [1, 1, 5, 1, 5, 5, 1, 5]


def annotation(number, image, **changes):
    found = {"id": number, "image_id": image, "category_id": 3, "bbox": [1, 1, 4, 4]}
    return found | {"iscrowd": 0, "area": 16, "segmentation": [SQUARE]} | changes


CONTENT = {
    "info": {"year": 2026},
    "licenses": [{"id": 1, "name": "CC0"}],
    "images": [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 10} for i in (1, 2)],
    "annotations": [annotation(1, 1), annotation(2, 2, category_id=9), annotation(3, 2)],
    "categories": [{"id": 3, "name": "fig"}, {"id": 9, "name": "date"}],
}
CLIPPED = annotation(4, 1, bbox=[7, 1, 4, 4])


class Dataset:
    """A set of two images whose results are kept although it is small."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.json_file = folder, folder / "set.json"
        self.images, self.checks = folder / "images", 0
        self.images.mkdir()
        for name in ("1.png", "2.png"):
            Image.new("L", (10, 8)).save(self.images / name)
        self.write(CONTENT)
        monkeypatch.setattr(checked, "KEPT_FROM", 0)
        original = checked.check_source

        def counted(*args, **options):
            self.checks += 1
            return original(*args, **options)

        monkeypatch.setattr(checked, "check_source", counted)

    def write(self, content):
        self.json_file.write_text(json.dumps(content))

    def register(self, **options):
        options = {"output_dir": str(self.folder / "output")} | options
        register_coco("kept", str(self.json_file), str(self.images), **options)
        found = list(DatasetCatalog.get("kept")), MetadataCatalog.get("kept").as_dict()
        return found

    def entry(self):
        (found,) = (self.folder / "output/datasets/cache").iterdir()
        return found


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    yield Dataset(tmp_path, monkeypatch)
    if "kept" in DatasetCatalog:
        DatasetCatalog.remove("kept")
        MetadataCatalog.remove("kept")


def test_a_second_start_takes_the_result_of_the_first(dataset):
    first = dataset.register()
    assert dataset.register() == first and dataset.checks == 1
    records, metadata = first
    assert [len(record["annotations"]) for record in records] == [1, 2]
    assert metadata["thing_dataset_id_to_contiguous_id"] == {3: 0, 9: 1}
    assert metadata["thing_classes"] == ["fig", "date"]


def change_the_file(dataset):
    dataset.write(CONTENT | {"annotations": [annotation(1, 1)]})


def change_the_file_but_not_its_size(dataset):
    text = dataset.json_file.read_text()
    status = os.stat(dataset.json_file)
    dataset.json_file.write_text(text.replace("[1, 1, 4, 4]", "[1, 1, 4, 5]", 1))
    os.utime(dataset.json_file, ns=(status.st_atime_ns, status.st_mtime_ns))


def change_an_image(dataset):
    Image.new("RGB", (10, 8)).save(dataset.images / "2.png")


def touch_an_image(dataset):
    os.utime(dataset.images / "2.png", ns=(0, 0))


def damage_an_array(dataset):
    path = dataset.entry() / "box.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut_an_array(dataset):
    path = dataset.entry() / "box.npy"
    path.write_bytes(path.read_bytes()[:-8])


def lose_an_array(dataset):
    (dataset.entry() / "crowd.npy").unlink()


def damage_the_entry(dataset):
    (dataset.entry() / "entry.json").write_text("{")


def give_the_entry_another_form(dataset):
    path = dataset.entry() / "entry.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"values": []}))


@pytest.mark.parametrize(
    "change",
    [
        change_the_file,
        change_the_file_but_not_its_size,
        change_an_image,
        touch_an_image,
        damage_an_array,
        cut_an_array,
        lose_an_array,
        damage_the_entry,
        give_the_entry_another_form,
    ],
    ids=lambda change: change.__name__,
)
def test_any_change_leads_to_another_check(dataset, change):
    dataset.register()
    change(dataset)
    again = dataset.register()
    assert dataset.checks == 2
    assert dataset.register() == again and dataset.checks == 2  # which is kept


@pytest.mark.parametrize(
    "options",
    [
        {"masks": False},
        {"mask_format": "bitmask"},
        {"for_evaluation": True},
        {"crowds": "ignore"},
        {"classes": ["fig", "date", "nut"]},
    ],
    ids=str,
)
def test_another_question_is_another_check(dataset, options):
    dataset.register()
    dataset.register(**options)
    assert dataset.checks == 2
    dataset.register()
    assert dataset.checks == 2


def test_an_image_that_is_gone_is_missed(dataset):
    dataset.register()
    (dataset.images / "2.png").unlink()
    with pytest.raises(ValueError, match="missing image files: 2.png"):
        dataset.register()


def test_a_trial_run_shares_the_cache_of_its_run(dataset):
    dataset.register(output_dir=str(dataset.folder / "output" / "fast_dev_run"))
    assert dataset.entry().is_dir()


def test_the_folder_can_be_chosen(dataset):
    cache = dataset.folder / "elsewhere"
    dataset.register(cache=str(cache), output_dir=None)
    dataset.register(cache=str(cache), output_dir=None)
    assert dataset.checks == 1 and len(list(cache.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_told(dataset, caplog):
    blocked = dataset.folder / "file"
    blocked.write_text("mine")
    dataset.register(cache=str(blocked))
    assert "cannot be kept" in caplog.text and blocked.read_text() == "mine"


def test_small_sets_are_not_kept(dataset, monkeypatch):
    monkeypatch.setattr(checked, "KEPT_FROM", 1000)
    dataset.register()
    dataset.register()
    assert dataset.checks == 2 and not (dataset.folder / "output").exists()


def test_repairs_are_told_again_and_their_copy_is_used(dataset, caplog):
    dataset.write(CONTENT | {"annotations": [*CONTENT["annotations"], CLIPPED]})
    records, metadata = dataset.register()
    told = [one.getMessage() for one in caplog.records if "clipped" in one.getMessage()]
    assert len(told) == 1 and "annotation 4 in 1.png" in told[0]
    copy = json.loads(Path(metadata["json_file"]).read_text(encoding="utf-8"))
    assert copy.pop("mended_copy_of") == str(dataset.json_file)
    repaired = CLIPPED | {"bbox": [7, 1, 3, 4]}
    assert copy == CONTENT | {"annotations": [*CONTENT["annotations"], repaired]}
    assert records[0]["annotations"][1]["bbox"] == [7, 1, 3, 4]
    caplog.clear()
    assert dataset.register() == (records, metadata) and dataset.checks == 1
    assert "annotation 4 in 1.png" in caplog.text


@pytest.mark.parametrize("loss", ["removed", "changed"])
def test_a_lost_copy_is_made_again(dataset, loss):
    dataset.write(CONTENT | {"annotations": [*CONTENT["annotations"], CLIPPED]})
    _, metadata = dataset.register()
    copy = Path(metadata["json_file"])
    text = copy.read_text(encoding="utf-8")
    copy.unlink() if loss == "removed" else copy.write_text(text + " ", encoding="utf-8")
    dataset.register()
    assert copy.read_text(encoding="utf-8") == text and dataset.checks == 2


def test_classes_of_the_model_reach_records_and_copy(dataset):
    records, metadata = dataset.register(classes=["nut", "date", "fig"])
    names = [
        [metadata["thing_classes"][one["category_id"]] for one in record["annotations"]]
        for record in records
    ]
    assert names == [["fig"], ["date", "fig"]]
    content = json.loads(Path(metadata["json_file"]).read_text(encoding="utf-8"))
    by_id = {one["id"]: one["name"] for one in content["categories"]}
    assert [by_id[one["category_id"]] for one in content["annotations"]] == ["fig", "date", "fig"]
    assert sorted(by_id) == list(metadata["thing_dataset_id_to_contiguous_id"])


class TestSeveralProcesses:
    """One process of a machine checks; simulated by its rank and a gathering of texts."""

    @pytest.fixture
    def rank(self, monkeypatch):
        def become(rank, gathered):
            monkeypatch.setattr(checked.comm, "get_local_rank", lambda: rank)
            monkeypatch.setattr(checked.comm, "all_gather", lambda text: [*gathered, text])

        return become

    def test_others_take_the_result_of_the_first(self, dataset, rank):
        rank(0, [])
        first = dataset.register()
        rank(1, [""])
        assert dataset.register() == first and dataset.checks == 1

    def test_all_end_with_the_error_of_the_first(self, dataset, rank):
        rank(1, ["set.json cannot be used"])
        with pytest.raises(ValueError, match="set.json cannot be used"):
            dataset.register()
        assert dataset.checks == 0


def test_the_arrays_are_read_without_code(dataset, monkeypatch):
    dataset.register()
    path = dataset.entry() / "box.npy"
    with pytest.raises(ValueError, match="pickle"):
        np.save(path, np.array([{}], object), allow_pickle=True)
        np.load(path)
    dataset.register()  # which does not load it, as its digest is another
    assert dataset.checks == 2


def test_a_copy_that_cannot_be_written_is_an_error_with_the_report(dataset):
    dataset.write(CONTENT | {"annotations": [annotation(1, 1), CLIPPED]})
    with pytest.raises(ValueError, match="clipped(.|\n)*cannot be written, choose another OUTPUT"):
        dataset.register(output_dir=str(dataset.json_file / "output"))


def test_a_file_in_the_way_of_the_copy_is_no_fault_of_the_json(dataset):
    dataset.write(CONTENT | {"annotations": [annotation(1, 1), CLIPPED]})
    target = dataset.folder / "output" / "datasets" / "kept.json"
    target.parent.mkdir(parents=True)
    target.write_text("{}")
    with pytest.raises(ValueError, match=f"^{target} is in the way"):
        dataset.register()
    assert target.read_text() == "{}"
