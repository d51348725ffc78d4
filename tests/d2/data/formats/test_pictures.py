"""Image files are found by the names that tools give them, and never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from swinv2_backbone.d2.data.formats.pictures import Pictures

FILES = ("a.jpg", "x/b.jpg", "y/b.jpg", "c.tiff", "d.e.png", "x/0f0f0f0f-f.jpg", "a.txt", ".h.png")


@pytest.fixture
def pictures(tmp_path) -> Pictures:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return Pictures(tmp_path)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.jpg", "a.jpg"),
        ("./a.jpg", "a.jpg"),
        ("x/../a.jpg", "a.jpg"),
        ("/home/me/photos/a.jpg", "a.jpg"),
        ("C:\\me\\a.jpg", "a.jpg"),
        ("x\\b.jpg", "x/b.jpg"),
        ("/home/y/b.jpg", "y/b.jpg"),
        ("b.jpg", None),  # two of them
        ("a", "a.jpg"),
        ("a.png", "a.jpg"),  # exported with another ending
        ("c.jpg", "c.tiff"),
        ("d.e", "d.e.png"),
        ("12345678-a.jpg", "a.jpg"),  # the prefix of an upload
        ("/data/0f0f0f0f-f.jpg", "x/0f0f0f0f-f.jpg"),
        ("a%2Ejpg", "a.jpg"),
        ("z.jpg", None),
        ("", None),
    ],
)
def test_names_of_tools_are_found(pictures, name, found):
    assert pictures.find(name) == found


def test_only_images_that_are_not_hidden_are_listed(pictures):
    assert pictures.files == [
        "a.jpg",
        "c.tiff",
        "d.e.png",
        "x/0f0f0f0f-f.jpg",
        "x/b.jpg",
        "y/b.jpg",
    ]


def test_a_missing_folder_is_named():
    with pytest.raises(ValueError, match="'nowhere' does not exist"):
        Pictures(Path("nowhere"))
