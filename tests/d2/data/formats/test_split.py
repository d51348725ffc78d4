"""A dataset divided by a share: the same for any order, groups together, counts right."""

from __future__ import annotations

import random

import pytest

from swinv2_backbone.d2.data.formats.split import counts_by_class, split_dataset


def film(name: str, frames: int, first: int) -> list[dict]:
    return [{"id": first + i, "file_name": f"{name}/{name}_{i:03}.jpg"} for i in range(frames)]


IMAGES = [image for n in range(20) for image in film(f"film{n}", 5, 5 * n)]
CONTENT = {
    "images": IMAGES,
    "annotations": [
        {"id": one["id"], "image_id": one["id"], "category_id": 1 + one["id"] % 2} for one in IMAGES
    ],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
}


def names(content: dict) -> set[str]:
    return {image["file_name"] for image in content["images"]}


def test_the_parts_have_the_share_and_every_image_once():
    train, test = split_dataset(CONTENT, 0.2)
    assert len(test["images"]) == 20
    assert not names(train) & names(test) and names(train) | names(test) == names(CONTENT)
    assert all(part["categories"] == CONTENT["categories"] for part in (train, test))
    for part in (train, test):
        kept = {image["id"] for image in part["images"]}
        assert {one["image_id"] for one in part["annotations"]} == kept


def test_the_division_depends_on_the_seed_and_not_on_order_or_ids():
    _, test = split_dataset(CONTENT, 0.2, seed=3)
    shuffled = random.Random(0).sample(IMAGES, len(IMAGES))
    renumbered = [image | {"id": 1000 + i} for i, image in enumerate(shuffled)]
    _, other = split_dataset(CONTENT | {"images": renumbered, "annotations": []}, 0.2, seed=3)
    assert names(test) == names(other)
    assert names(test) != names(split_dataset(CONTENT, 0.2, seed=4)[1])


@pytest.mark.parametrize("group_by", ["folder", r"^film\d+", r"/(film\d+)_"])
def test_frames_of_one_film_stay_together(group_by):
    train, test = split_dataset(CONTENT, 0.2, group_by=group_by)
    films = [{name.split("/")[0] for name in names(part)} for part in (train, test)]
    assert not films[0] & films[1] and len(films[1]) == 4


def test_augmented_copies_of_roboflow_stay_with_their_image():
    images = [
        {"id": 3 * n + i, "file_name": f"{n}_jpg.rf.{n:020}{i:012}.jpg"}
        for n in range(10)
        for i in range(3)
    ]
    train, test = split_dataset({"images": images, "annotations": [], "categories": []}, 0.3)
    sources = [{name.split("_")[0] for name in names(part)} for part in (train, test)]
    assert not sources[0] & sources[1] and len(sources[1]) == 3
    content = {"images": images, "annotations": [], "categories": []}
    assert split_dataset(content, 0.3, group_by=".*")[1] == test  # the whole name


def test_a_film_larger_than_the_share_is_in_one_part_whole():
    images = [*film("long", 60, 0), *IMAGES]
    images = [one | {"id": number} for number, one in enumerate(images)]
    content = {"images": images, "annotations": [], "categories": []}
    for seed in range(20):
        train, test = split_dataset(content, 0.25, seed=seed, group_by="folder")
        films = [{name.split("/")[0] for name in names(part)} for part in (train, test)]
        assert not films[0] & films[1] and len(names(test)) in (40, 60)
        assert films[1] == {"long"} if "long" in films[1] else len(films[1]) == 8


def test_objects_are_counted_by_class():
    assert counts_by_class(CONTENT) == {"a": 50, "b": 50}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"share": 1.0}, "between 0 and 1"),
        ({"share": 0.001}, "100 images in 100 groups .the smallest has 1. would leave one part"),
        ({"share": 0.01, "group_by": "folder"}, "100 images in 20 groups .the smallest has 5."),
        ({"share": 0.2, "group_by": "^film"}, "100 images in 1 group .which cannot be in both"),
        ({"share": 0.2, "group_by": "^(film1)?"}, "finds nothing in the file name 'film0/"),
        ({"share": 0.2, "group_by": r"\d*$"}, "finds nothing in the file name 'film0/"),
        ({"share": 0.2, "group_by": "["}, "no regular expression"),
        ({"share": 0.2, "group_by": "clip"}, "'film0/film0_000.jpg' does not match"),
    ],
)
def test_impossible_divisions_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        split_dataset(CONTENT, **options)
