"""Saving on systems without Linux's calls, such as Windows."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.files import write_file


def refuse_folders(monkeypatch) -> list[Path]:
    """Make os.open fail for a folder, as on Windows; return the folders that were refused."""
    original, refused = os.open, []

    def open_file(path, *args, **kwargs):
        if os.path.isdir(path):
            refused.append(Path(path))
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_file)
    return refused


def test_files_are_saved_where_folders_cannot_be_opened(tmp_path, monkeypatch):
    refused = refuse_folders(monkeypatch)
    write_file(tmp_path / "weights.pth", {"a": torch.arange(3)}, {})
    write_text(tmp_path / "notes.txt", "höher")
    write_text(tmp_path / "notes.txt", "größer")  # over the earlier file
    assert refused == [tmp_path] * 3
    assert torch.load(tmp_path / "weights.pth")["a"].tolist() == [0, 1, 2]
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "größer"
    assert sorted(os.listdir(tmp_path)) == ["notes.txt", "weights.pth"]


def test_files_are_saved_without_a_way_to_drop_the_page_cache(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    write_text(tmp_path / "notes.txt", "all")
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "all"
