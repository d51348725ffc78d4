"""The checkpoint from which training resumes: the last one in its folder that can be read."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from detectron2.utils import comm

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.files import Content

logger = logging.getLogger(__name__)
TAG = "last_checkpoint"  # file that names the last checkpoint, as in Detectron2
TAG_DIGEST = f"{TAG}.sha256"
FINAL = "model_final.pth"
VISIBLE_AFTER = 60.0  # seconds for which NFS may hide a new file from other machines
Read = Callable[[Path], Content]


def tag_checkpoint(folder: Path, name: str) -> None:
    """Write the name of the last checkpoint to ``last_checkpoint``, and its digest beside it.

    Detectron2 reads the whole file as the name, so the digest has a file of its own.
    """
    write_text(folder / TAG, name)
    write_text(folder / TAG_DIGEST, _digest(name))


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the checkpoints of a run: the last one, then the others from new to old.

    The last one is the tagged one, unless the tag no longer has its digest and another checkpoint
    is both newer and of a later iteration. (Age alone does not tell, because copied files have the
    age of the copy; nor does the iteration, because an earlier run may have left later ones.)
    """
    found = [*folder.glob("model_" + "[0-9]" * 7 + ".pth"), *folder.glob(FINAL)]
    found.sort(key=_age, reverse=True)
    tagged = _read(folder / TAG)
    if not tagged or Path(tagged).name != tagged:
        if found:
            logger.warning(f"{folder / TAG} does not name a checkpoint")
        return found
    named, first = folder / tagged, [folder / tagged]
    if _read(folder / TAG_DIGEST) not in ("", _digest(tagged)) and named in found:
        later = [path for path in found if _is_later(path, named)]
        if later:
            first = [later[0], named]
            logger.warning(
                f"{folder / TAG} was changed after it was written: it names {tagged}, but "
                f"{later[0].name} is newer and of a later iteration, and is taken. To resume from "
                f"{tagged}, delete {folder / TAG_DIGEST}"
            )
    return [*first, *(path for path in found if path not in first)]


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def _is_later(path: Path, other: Path) -> bool:
    return _age(path) > _age(other) and _order(path) > _order(other)


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _order(path: Path) -> str:
    """Return a key that grows with the iteration; the digits are padded, and FINAL is the last."""
    return path.name.replace(FINAL, "model_~")


def last_good_checkpoint(folder: Path, read: Read) -> tuple[Path | None, Content | None]:
    """Find the last checkpoint that ``read`` accepts; all processes find the same one.

    Returns:
        Its path, and in the main process its content; None if the folder has no checkpoints.

    Raises:
        ValueError: there are checkpoints, but none can be read, or not by all processes.
    """
    path, content, failure = None, None, ""
    if comm.is_main_process():
        path, content, failure = _first_good(checkpoints_in(folder), read)
    path, failure = comm.all_gather((path, failure))[0]
    if failure:
        raise ValueError(failure)
    if path:
        _require_in_all_processes(path)
    return path, content


def _first_good(candidates: Sequence[Path], read: Read) -> tuple[Path | None, Content | None, str]:
    """Return the first candidate that ``read`` accepts, its content, and an error if none is."""
    failures = []
    for path in candidates:
        try:
            content = read(path)
        except (OSError, ValueError) as error:
            failures.append(f"{path}: {error}")
            logger.warning(f"Checkpoint skipped: {error}")
        else:
            if failures:
                logger.warning(f"Using the previous checkpoint: {path}")
            return path, content, ""
    text = "none of the checkpoints can be read (start from the beginning without --resume)"
    return None, None, f"{text}: {'; '.join(failures)}" if failures else ""


def _require_in_all_processes(path: Path) -> None:
    absent = [rank for rank, seen in enumerate(comm.all_gather(_appears(path))) if not seen]
    if absent:
        raise ValueError(
            f"processes {absent} cannot read {path}: all machines must share the folder"
        )


def _appears(path: Path) -> bool:
    """Return True if a file exists; one that is new on another machine has time to appear."""
    end = time.monotonic() + VISIBLE_AFTER
    while not path.is_file():
        if time.monotonic() > end:
            return False
        time.sleep(VISIBLE_AFTER / 60)
        with contextlib.suppress(OSError):
            os.listdir(path.parent)  # lets NFS look again
    return True
