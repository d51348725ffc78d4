"""Damaged weight files of others, which state no digest, and what loading notices of the damage.

PYTHONPATH=tools python -m reliability.damage        # all files of docs/SECURITY.md

Two formats have no checksum: .safetensors as safetensors.torch.save_file writes it, and .pth as
torch.save wrote it before PyTorch 1.6.  Every five files have two flipped bits (one each), a block
of zeros, a block of random bytes and a truncation, at places drawn from a seed.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from swinv2_backbone import SwinV2, load_checkpoint

COUNT = 260  # files of each format
KINDS = ("flipped bit", "zeroed block", "flipped bit", "random block", "truncated")
BLOCK = (512, 4096)  # bytes
OUTCOMES = ("refused", "the same weights", "other weights, warned", "other weights, silent")
FORMATS = (".safetensors", ".pth")
ALL = "any of these, with NAME.sha256"


def model() -> SwinV2:
    """Return a small SwinV2 with its initial weights."""
    return SwinV2(
        32, (2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=8, pretrained_window_sizes=8
    )


def trained_state(seed: int = 0) -> dict[str, Tensor]:
    """Return weights such as training gives.

    Linear layers and biases leave their initial values by a little noise, norms are between 0.1 and
    2, and logit scales between those of the initialization and of the clamp, 2.3 and 4.6.
    """
    torch.manual_seed(seed)
    state = model().state_dict()
    for name, value in state.items():
        if name.endswith("logit_scale"):
            value += 2.3 * torch.rand_like(value)
        elif value.ndim == 1 and "norm" in name and name.endswith("weight"):
            value.copy_(0.1 + 1.9 * torch.rand_like(value))
        else:
            value += 0.005 * torch.randn_like(value)
    return state


def write(state: dict[str, Tensor], path: Path) -> None:
    """Write a file as other programs do, in a format without checksums."""
    if path.suffix == ".safetensors":
        import safetensors.torch

        safetensors.torch.save_file(state, path)
    else:
        numbers: dict[int, int] = {}
        number = property(lambda one: numbers.setdefault(one.data_ptr(), 10**14 + len(numbers)))
        # The old format has and sorts the addresses in memory, which differ from run to run.
        with patch.object(torch.UntypedStorage, "_cdata", number):
            torch.save(state, path, _use_new_zipfile_serialization=False)


def damaged(content: bytes, kind: str, random: random.Random) -> bytes:
    """Return a damaged copy of a file's content."""
    place = random.randrange(len(content))
    if kind == "truncated":
        return content[:place]
    if kind == "flipped bit":
        block = bytes([content[place] ^ 1 << random.randrange(8)])
    else:
        length = random.randint(*BLOCK)
        place = random.randrange(len(content) - length)
        block = bytes(length) if kind == "zeroed block" else random.randbytes(length)
    return content[:place] + block + content[place + len(block) :]


def files(folder: Path, suffix: str, count: int) -> Iterator[tuple[str, Path]]:
    """Write the damaged files of a format, one after the other under one name.

    Yields:
        The kind of damage, and the file.
    """
    path = folder / f"weights{suffix}"
    write(trained_state(), path)
    content, generator = path.read_bytes(), random.Random(suffix)
    digest = hashlib.sha256(content).hexdigest()
    path.with_name(f"{path.name}.digest").write_text(digest, encoding="ascii")
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        path.write_bytes(damaged(content, kind, generator))
        yield kind, path


def outcome(loaded: SwinV2, path: Path, expected: dict[str, Tensor]) -> str:
    """Load a file into a model, and return one of ``OUTCOMES``."""
    try:
        report = load_checkpoint(loaded, path)
    except ValueError:
        return OUTCOMES[0]
    state = loaded.state_dict()
    if all(torch.equal(state[name], value) for name, value in expected.items()):
        return OUTCOMES[1]
    return OUTCOMES[2] if report.unusual else OUTCOMES[3]


def survey(folder: Path, count: int = COUNT) -> dict[str, dict[str, dict[str, int]]]:
    """Load damaged files without a digest, and again with ``NAME.sha256`` beside them.

    Args:
        folder: an empty folder for the files.
        count: files of each format.

    Returns:
        The number of files by format, kind of damage, and outcome:
        ``{".safetensors": {"flipped bit": {"refused": 7, ...}, ..., ALL: ...}, ...}``.
    """
    expected, loaded = trained_state(), model()
    found: dict[str, dict[str, dict[str, int]]] = {}
    for suffix in FORMATS:
        rows = {kind: Counter({name: 0 for name in OUTCOMES}) for kind in (*KINDS, ALL)}
        for kind, path in files(folder, suffix, count):
            beside = path.with_name(f"{path.name}.sha256")
            rows[kind][outcome(loaded, path, expected)] += 1
            digest = path.with_name(f"{path.name}.digest").read_text(encoding="ascii")
            beside.write_text(digest, encoding="ascii")
            rows[ALL][outcome(loaded, path, expected)] += 1
            beside.unlink()
        found[suffix] = {kind: dict(row) for kind, row in rows.items()}
    return found


def silent_changes(folder: Path, count: int = COUNT) -> list[float]:
    """Return by how much each flipped bit that is loaded in silence changes a weight, sorted."""
    expected, loaded, changes = trained_state(), model(), []
    for suffix in FORMATS:
        for kind, path in files(folder, suffix, count):
            if kind == "flipped bit" and outcome(loaded, path, expected) == OUTCOMES[3]:
                state = loaded.state_dict()
                changed = [(state[name] - value).abs().max() for name, value in expected.items()]
                changes.append(float(max(changed)))
    return sorted(changes)


def table(found: dict[str, dict[str, dict[str, int]]]) -> str:
    """Format the counts of ``survey`` as a table in Markdown."""
    lines = [f"| format | damage | {' | '.join(OUTCOMES)} |", "|---|---|---|---|---|---|"]
    for suffix, rows in found.items():
        for kind, row in rows.items():
            lines.append(f"| {suffix} | {kind} | {' | '.join(str(row[n]) for n in OUTCOMES)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=COUNT, help="files of each format")
    args = parser.parse_args()
    logging.getLogger("swinv2_backbone").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        print(table(survey(Path(folder), args.count)))
        changes = silent_changes(Path(folder), args.count)
    print(
        f"\n{len(changes)} flipped bits in silence: each changes a weight by "
        f"{statistics.median(changes):.1e} in the median, by {max(changes):.1g} at most"
    )


if __name__ == "__main__":
    main()
