"""The checkpoint from which a run resumes, whatever ``last_checkpoint`` says."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from swinv2_backbone.d2.engine import last_checkpoint
from swinv2_backbone.d2.engine.last_checkpoint import (
    TAG,
    TAG_DIGEST,
    checkpoints_in,
    tag_checkpoint,
)


def run_of(folder: Path, *names: str, tagged: str | bytes, written: str = "") -> Path:
    """Write empty checkpoints, from old to new, and a tag; ``written``: before it was changed."""
    for age, name in enumerate(names):
        (folder / name).touch()
        os.utime(folder / name, (1000 + age, 1000 + age))
    if written:
        tag_checkpoint(folder, written)
    (folder / TAG).write_bytes(tagged if isinstance(tagged, bytes) else tagged.encode())
    return folder


EIGHT, EIGHTEEN, LAST = "model_0000008.pth", "model_0000018.pth", "model_final.pth"


@pytest.mark.parametrize("newest", [EIGHTEEN, LAST])
def test_a_tag_that_names_an_older_checkpoint_of_an_earlier_iteration_is_overruled(
    newest, tmp_path, caplog
):
    found = checkpoints_in(run_of(tmp_path, EIGHT, newest, tagged=EIGHT, written=newest))
    assert [path.name for path in found] == [newest, EIGHT]
    assert f"names {EIGHT}, but {newest} is newer" in caplog.text
    (tmp_path / TAG_DIGEST).unlink()  # as the warning says
    assert [path.name for path in checkpoints_in(tmp_path)] == [EIGHT, newest]


@pytest.mark.parametrize(
    "old_to_new, tagged",
    [
        ((EIGHT, EIGHTEEN), EIGHTEEN),  # as saved
        ((EIGHTEEN, EIGHT), EIGHTEEN),  # copied in another order
        ((EIGHTEEN, LAST, EIGHT), EIGHT),  # a new run over the files of a longer one
        ((LAST, EIGHTEEN), EIGHTEEN),  # a run that was made longer
        ((EIGHT, EIGHTEEN, LAST), EIGHTEEN),  # the same, copied in another order
    ],
)
def test_a_tag_as_it_was_written_is_followed(old_to_new, tagged, tmp_path, caplog):
    found = checkpoints_in(run_of(tmp_path, *old_to_new, tagged=tagged, written=tagged))
    assert found[0].name == tagged and len(found) == len(old_to_new)
    assert not caplog.text


@pytest.mark.parametrize("tag", [b"", b"\xff\xfe", b"../model_0000008.pth"])
def test_without_a_name_in_the_tag_the_newest_is_the_first(tag, tmp_path, caplog):
    found = checkpoints_in(run_of(tmp_path, EIGHT, EIGHTEEN, tagged=tag))
    assert [path.name for path in found] == [EIGHTEEN, EIGHT]
    assert "does not name a checkpoint" in caplog.text


def test_every_bit_of_a_tag_may_flip(tmp_path):
    """A flipped tag never names another checkpoint that is then resumed in silence."""
    names = [f"model_{number:07d}.pth" for number in (2, 8, 10, 12, 14, 16, 18)]
    run_of(tmp_path, *names, tagged=names[-1], written=names[-1])
    for bit in range(8 * len(names[-1])):
        flipped = bytearray(names[-1].encode())
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / TAG).write_bytes(flipped)
        existing = [path for path in checkpoints_in(tmp_path) if path.is_file()]
        assert existing[0].name == names[-1]


def test_a_checkpoint_that_a_network_folder_still_hides_is_waited_for(tmp_path, monkeypatch):
    """NFS may tell a machine for a minute that a file does not exist that another one wrote."""
    monkeypatch.setattr(last_checkpoint, "VISIBLE_AFTER", 20.0)
    path = tmp_path / EIGHT
    shows = threading.Timer(0.3, path.touch)
    shows.start()
    assert last_checkpoint._appears(path)
    shows.join()


def test_a_checkpoint_that_one_process_never_sees_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(last_checkpoint, "VISIBLE_AFTER", 0.1)
    with pytest.raises(ValueError, match=r"processes \[0\] cannot read .* must share the folder"):
        last_checkpoint._require_in_all_processes(tmp_path / EIGHT)
