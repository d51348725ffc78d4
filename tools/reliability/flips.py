"""Flipped bits and damaged files: the tag, the notes of weights, and checkpoints to resume from."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import random
import shutil
import struct
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from reliability.judging import differences, started_from
from reliability.work import Work, stated
from swinv2_backbone import SwinV2
from swinv2_backbone.checkpoints.files import NOTES_DIGEST, Content, read_file
from swinv2_backbone.checkpoints.save import save_checkpoint
from swinv2_backbone.d2.engine.last_checkpoint import TAG, checkpoints_in, tag_checkpoint

FLIPS, DAMAGED, OTHERS = 1880, 570, (60, 260)


def tag_flips(work: Work) -> str:
    """Flip every bit of last_checkpoint: an older iteration is never resumed in silence."""
    folder, found = work.reference(), Counter[str]()
    (folder / "model_final.pth").unlink()
    last = "model_0000008.pth"
    tag_checkpoint(folder, last)
    for bit in range(8 * len(last)):
        flipped = bytearray(last.encode())
        flipped[bit // 8] ^= 1 << bit % 8
        (folder / TAG).write_bytes(flipped)
        with warnings() as said:
            name = next(path.name for path in checkpoints_in(folder) if path.is_file())
        found[name] += 1
        work.expect(name == last or said(), f"bit {bit} of the tag resumes {name} in silence")
        if bit % 17 == 0:
            _resumes(work, folder, name, bit)
    work.times = 8 * len(last)
    return stated(work.times, "flips of the tag", found)


def _resumes(work: Work, folder: Path, name: str, bit: int) -> None:
    """Run --resume, which must take the checkpoint that its search has found."""
    shutil.copytree(folder, work.folder / f"bit{bit}")
    command = work.train(f"bit{bit}", "yaml", "--resume")
    work.expect(command.wait() == 0, f"bit {bit}: {command.last}")
    begin = started_from(command.text)
    work.expect(begin == int(name[6:13]) + 1, f"bit {bit}: begins at {begin}, not after {name}")


@contextlib.contextmanager
def warnings() -> Iterator[Callable[[], str]]:
    """Record the warnings of the package's loggers."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("swinv2_backbone")
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        yield text.getvalue
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


# ---- Files of weights


def header_flips(work: Work) -> str:
    """Flip bits of the header and the notes of our safetensors: none changes what is loaded."""
    work.folder.mkdir(parents=True, exist_ok=True)
    path, found = work.folder / "model.safetensors", Counter[str]()
    save_checkpoint(_small(), path)
    whole, expected = path.read_bytes(), read_file(path)
    (length,) = struct.unpack("<Q", whole[:8])
    start, end = _notes(whole[: 8 + length])
    for number in range(FLIPS):
        places = (start, end) if number % 2 else (0, 8 + length)
        place, bit = work.chance.randrange(*places), work.chance.randrange(8)
        path.write_bytes(flipped(whole, place, bit))
        found[_load(work, path, expected, f"bit {bit} of byte {place}")] += 1
    work.times = FLIPS
    return stated(work.times, f"flips in a header of {length} bytes", found)


def _small() -> SwinV2:
    return SwinV2(embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)


def _notes(header: bytes) -> tuple[int, int]:
    start = header.index(b'"__metadata__"')
    return start, header.index(b"}", start) + 1


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def damaged_checkpoints(work: Work) -> str:
    """Damage checkpoints to resume from: none loads other values."""
    path, found = work.reference() / "model_final.pth", Counter[str]()
    whole, expected = path.read_bytes(), read_file(path, extras=False)
    damaged = work.folder / "damaged.pth"
    for number in range(DAMAGED):
        name, damage = DAMAGES[number % len(DAMAGES)]
        damaged.write_bytes(damage(whole, work.chance))
        result = _load(work, damaged, expected, f"{name} ({number})", extras=False)
        found[result] += 1
    work.times = DAMAGED
    return stated(work.times, "damaged checkpoints", found)


def _load(work: Work, path: Path, expected: Content, told: str, **how: bool) -> str:
    """Load a damaged file, which must be refused or give what was written."""
    try:
        with warnings():
            found = read_file(path, **how)
    except (OSError, ValueError):
        return "refused"
    # A flip in the name of the notes' digest is a further note, which nothing reads.
    notes = {key: found.metadata.get(key) for key in expected.metadata if key != NOTES_DIGEST}
    known = {key: expected.metadata[key] for key in notes}
    places = list(differences((expected.value, known), (found.value, notes)))
    work.expect(not places, f"{told}: loads with other {places[:3]}")
    return "loaded the same" if not places else "loaded another"


def _swapped(data: bytes, chance: random.Random) -> bytes:
    """Exchange two blocks of a file."""
    one, other = sorted(chance.sample(range(len(data) // 4096 - 1), 2))
    one, other = one * 4096, other * 4096
    middle = data[one + 4096 : other]
    first, second = data[one : one + 4096], data[other : other + 4096]
    return data[:one] + second + middle + first + data[other + 4096 :]


def _zeroed(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data) - 4096)
    return data[:place] + bytes(4096) + data[place + 4096 :]


Damage = Callable[[bytes, random.Random], bytes]
DAMAGES: tuple[tuple[str, Damage], ...] = (
    ("a bit", lambda data, chance: flipped(data, chance.randrange(len(data)), chance.randrange(8))),
    ("a bit of the end", lambda data, chance: flipped(data, -chance.randrange(1, 9000), 0)),
    ("cut", lambda data, chance: data[: chance.randrange(len(data))]),
    ("zeros", _zeroed),
    ("zeros at the end", lambda data, chance: data + bytes(chance.randrange(1, 5000))),
    ("blocks exchanged", _swapped),
)


def damaged_others(work: Work) -> str:
    """Damage weights of other programs, which state no digest: with NAME.sha256, none is used."""
    damage = importlib.import_module("reliability.damage")
    with warnings():
        found = damage.survey(work.folder, OTHERS[work.full])
    alone, digested = Counter[str](), Counter[str]()
    for rows in found.values():
        for kind, row in rows.items():
            (digested if kind == damage.ALL else alone).update(row)
    other = {name: count for name, count in digested.items() if "other weights" in name and count}
    work.expect(not other, f"with a digest: {other}")
    work.times = alone.total()
    return stated(work.times, "files without a checksum", alone) + "; with NAME.sha256 none loads"
