"""Which images a large run takes: every one once, in a fixed order, from any kind of source."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_predictor import write_images

from swinv2_backbone.d2.data.loading.bands import read_bands
from swinv2_backbone.d2.data.loading.images import read_image
from swinv2_backbone.d2.inference.scale.sources import Sources


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """The working directory: photos/ with two images, and more/ within it with two others."""
    monkeypatch.chdir(tmp_path)
    write_images(Path("photos"), 2, (4, 5))
    write_images(Path("photos/more"), 2, (4, 5))
    (Path("photos") / "notes.md").write_text("text", encoding="utf-8")
    (Path("photos") / "._00000.png").write_text("text", encoding="utf-8")
    return tmp_path


def names(*entries: str, **options) -> list[str]:
    return [source.name for source in Sources(entries, **options)]


def write_tar(path: str, folder: str = "photos/more", mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:
        for image in sorted(Path(folder).glob("*.png")):
            archive.add(image, f"a/{image.name}")
            text = tarfile.TarInfo(f"a/{image.stem}.json")
            text.size = 2
            archive.addfile(text, io.BytesIO(b"{}"))


def test_folders_are_searched_in_order_and_their_subfolders_by_request(photos):
    flat, deep = (
        ["photos/00000.png", "photos/00001.png"],
        [
            "photos/more/00000.png",
            "photos/more/00001.png",
        ],
    )
    assert names("photos") == flat
    assert names("photos", recursive=True) == flat + deep
    assert names("photos/more", "photos", "photos/0*.png", recursive=True) == deep + flat
    sources = Sources(["photos"])
    assert len(list(sources)) == 2
    assert sorted(path.name for path in sources.passed_over) == ["._00000.png", "more", "notes.md"]


def test_a_link_to_a_folder_that_contains_it_is_not_followed(photos):
    os.symlink("..", "photos/more/up")
    assert len(names("photos", recursive=True)) == 4


def test_lists_and_tables_give_their_paths_without_looking_for_the_files(photos):
    Path("list.txt").write_text("b/ü.png\r\n\na.png\na.png\n", encoding="utf-8")
    assert names("list.txt") == ["b/ü.png", "a.png"]
    Path("table.csv").write_text('id,path\n1,"a,b.png"\n2,c.png\n', encoding="utf-8")
    assert names("table.csv", column="path") == ["a,b.png", "c.png"]
    with pytest.raises(ValueError, match="no column 'file_name', only id, path: .* --column"):
        names("table.csv")


def test_a_parquet_file_gives_the_paths_of_a_column(photos):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({"p": ["b.png", "a.png"], "n": [1, 2]}), "t.parquet")
    assert names("t.parquet", column="p") == ["b.png", "a.png"]
    for column, message in (("q", "only p, n"), ("n", "holds 1, not a path")):
        with pytest.raises(ValueError, match=message):
            names("t.parquet", column=column)


def test_images_in_tar_files_are_read_in_place(photos):
    write_tar("shard.tar")
    found = list(Sources(["shard.tar"]))
    assert [one.name for one in found] == ["shard.tar/a/00000.png", "shard.tar/a/00001.png"]
    os.chdir("photos")  # relative paths start at the folder that is given
    for one, path in zip(found, sorted(Path("more").glob("*.png"))):
        pixels = read_image(one.name, "RGB", opener=one.opener(str(photos)))
        assert np.array_equal(pixels, np.asarray(Image.open(path)))


def test_arrays_of_bands_in_tar_files_are_read(photos):
    bands = np.random.default_rng(0).random((4, 5, 6), np.float32)
    np.save("a.npy", bands)
    with tarfile.open("bands.tar", "w") as archive:
        archive.add("a.npy")
    (found,) = Sources(["bands.tar"], bands=True)
    assert np.array_equal(read_bands(found.name, 6, opener=found.opener(".")), bands)


def test_a_damaged_tar_file_is_an_error_and_one_cut_later_a_failed_image(photos):
    write_tar("shard.tar")
    whole = Path("shard.tar").read_bytes()
    (first, _) = Sources(["shard.tar"])
    Path("shard.tar").write_bytes(whole[: first.offset + 10])
    with pytest.raises(OSError, match="shard.tar ends within shard.tar/a/00000.png"):
        first.opener(".")("", "rb")
    with pytest.raises(ValueError, match="'shard.tar': unexpected end of data"):
        names("shard.tar")
    write_tar("shard.tar.gz", mode="w:gz")
    with pytest.raises(ValueError, match="is compressed: images are read from plain .tar files"):
        names("shard.tar.gz")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("gone", "'gone' does not exist"),
        ("photos/*.bmp", "does not exist"),
        ("empty", "'empty': there are no images"),
        ("clip.mp4", "is a video: predict it with --output"),
        ("photos/notes.md", "is neither an image"),
    ],
)
def test_an_entry_without_images_is_an_error_that_names_it(photos, entry, message):
    Path("empty").mkdir()
    Path("clip.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=message):
        names(entry)
