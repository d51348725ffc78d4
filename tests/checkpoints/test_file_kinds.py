"""Files are recognized by their content, whatever their names; others are named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from checkpoint_files import assert_equal, small_backbone
from foreign_files import FOREIGN, archive
from oracle import randomize
from safetensors.torch import save_file

from swinv2_backbone import load_checkpoint
from swinv2_backbone.checkpoints.file_kinds import Kind, kind_of
from swinv2_backbone.checkpoints.files import read_file

WRITERS: dict[str, Callable[[dict, Path], None]] = {
    "zip": lambda content, path: torch.save({"model": content}, path),
    "before zip": lambda content, path: torch.save(
        {"model": content}, path, _use_new_zipfile_serialization=False
    ),
    "safetensors": lambda content, path: save_file(content, path),
}


@pytest.mark.parametrize("name", ["a.pth.tar", "a.ckpt", "a.pt2", "a.safetensors", "a.h5", "a"])
@pytest.mark.parametrize("writer", WRITERS)
def test_the_suffix_decides_nothing(writer, name, tmp_path):
    first, second = randomize(small_backbone(), seed=0), small_backbone(pretrained_window_sizes=4)
    WRITERS[writer](first.state_dict(), tmp_path / name)
    expected = Kind.SAFETENSORS if writer == "safetensors" else Kind.PYTORCH
    assert kind_of(tmp_path / name) is expected
    assert load_checkpoint(second, tmp_path / name).complete
    assert_equal(second.state_dict(), first.state_dict())


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_other_programs_are_named(kind, tmp_path):
    write, words = FOREIGN[kind]
    write(tmp_path / "model.pth")
    with pytest.raises(ValueError, match=rf"model.pth is {words}.*: \w+"):
        read_file(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello world", "neither a PyTorch nor a safetensors file .it starts with 'hello world'"),
        (b"\x80", "neither a PyTorch nor"),
        (b'{"a": 1}', "a JSON file"),
        (b"<?xml version", "an XML file"),
        (b"PK\x03\x04 cut", "damaged or cut short"),
        (b"\x08\0\0\0\0\0\0\0{", "is damaged"),
    ],
)
def test_what_is_no_weight_file_is_refused(content, words, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(ValueError, match=f"x.pth .*{words}|x.pth {words}"):
        read_file(tmp_path / "x.pth")


def test_an_archive_of_a_weight_file_says_what_is_in_it(tmp_path):
    archive(tmp_path / "x.pth", "run/model.pth")
    with pytest.raises(ValueError, match="a zip archive of run/model.pth.*unpack it"):
        read_file(tmp_path / "x.pth")
