"""Reading and writing weight files: PyTorch's (see ``pickled``) or safetensors."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.checkpoints.durable import digest_on_disk, durable
from swinv2_backbone.checkpoints.file_kinds import Kind, kind_of
from swinv2_backbone.checkpoints.pickled import read_pickled
from swinv2_backbone.checkpoints.satlas import SATLAS
from swinv2_backbone.variants import RELEASES

logger = logging.getLogger(__name__)
PICKLED = (".pth", ".pt", ".bin")  # suffixes to write; files to read may have any
SAFETENSORS = ".safetensors"
METADATA = "swinv2_backbone"  # the key of our notes in a file
SHA256 = re.compile(r"(?<![0-9a-fA-F])[0-9a-fA-F]{64}(?![0-9a-fA-F])")
NOTES_DIGEST = "notes_sha256"  # key of the digest of the other notes, which earlier files lack
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # names in a Hugging Face folder

# Name of a published file -> first digits of its SHA-256.
DIGESTS = {
    Path(path).name: Path(path).stem.rpartition("-")[2]
    for path in [
        *(release.path for release in RELEASES.values()),
        *(file.path for file in SATLAS.values()),
    ]
}


class Content(NamedTuple):
    """The content of a file: the object itself, and our notes about it, if there are any."""

    value: Any
    metadata: dict[str, Any]


def read_file(path: Path, extras: bool = True) -> Content:
    """Read a weight file.

    Args:
        path: the file.
        extras: accept the classes of benign training files, as inert objects; False allows only
            tensors and plain data, for files whose whole content is used.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, would run code, or is of another program.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    _check_digest(path)
    if kind_of(path) is Kind.SAFETENSORS:
        return _read_safetensors(path)
    value = read_pickled(path, extras)
    return Content(value, _notes(value.get(METADATA) if isinstance(value, Mapping) else None))


def _notes(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, Mapping) else {}


def _check_digest(path: Path) -> None:
    """Check a file against the SHA-256 in a published name, and in ``NAME.sha256`` beside it."""
    beside = _digest_beside(path)
    stated = {"its published name": DIGESTS.get(path.name, "")}
    if beside.is_file():
        stated[str(beside)] = _read_digest(beside, path.name)
    if not any(stated.values()):
        return
    found = digest_on_disk(path)
    for place, expected in stated.items():
        if not found.startswith(expected):
            raise ValueError(
                f"{path} is damaged: its SHA-256 starts with {found[:8]}, not {expected[:8]} as in "
                f"{place}; delete it and fetch it again"
            )


def _digest_beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _read_digest(file: Path, name: str) -> str:
    """Read the digest of a file from what ``sha256sum`` or another program has written.

    It is that of the line with the name of the file, or the only one; "" if there is no such.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if SHA256.search(line)]
    own = [line for line in lines if name in line] or lines
    if len(own) != 1:
        logger.warning(f"{file} has no SHA-256 of {name}, and is ignored")
        return ""
    return SHA256.search(own[0])[0].lower()  # type: ignore[index]


def write_file(
    path: Path, content: Mapping[str, Any], metadata: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Write a dict of tensors (.safetensors), or of anything that torch.save accepts.

    The file appears whole or not at all.

    Args:
        path: .safetensors, .pth, .pt or .bin.
        content: the dict.
        metadata: our notes, for the header of a .safetensors file; for a pickled file, the caller
            puts them into ``content``.
        overwrite: replace an existing file.

    Raises:
        ValueError: the suffix is unknown.
        FileExistsError: the file exists and ``overwrite`` is False.
    """
    if path.suffix not in (*PICKLED, SAFETENSORS):
        raise ValueError(f"{path}: write to {', '.join((SAFETENSORS, *PICKLED))}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists; give --overwrite to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    _digest_beside(path).unlink(missing_ok=True)  # that of the file that is replaced
    if path.suffix == SAFETENSORS:
        _write_safetensors(path, content, metadata)
    else:
        with durable(path) as file:
            torch.save(dict(content), file)


def _safetensors() -> ModuleType:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a .safetensors file needs the package safetensors: pip install safetensors"
        ) from error
    return safetensors


def _read_safetensors(path: Path) -> Content:
    safetensors = _safetensors()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            notes = _notes(json.loads(header.get(METADATA, "{}")))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    stated = notes.pop(NOTES_DIGEST, None)
    if stated not in (None, _digest_of_notes(notes)) or _has_lost_notes(header):
        raise ValueError(f"{path} is damaged: the SHA-256 of its notes is not the one it states")
    if "sha256" in notes and notes["sha256"] != _sha256(tensors):
        raise ValueError(f"{path} is damaged: the SHA-256 of its tensors is not the one it states")
    return Content(tensors, notes)


def _write_safetensors(path: Path, content: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    tensors = {key: value.contiguous() for key, value in content.items()}
    notes = {**metadata, "sha256": _sha256(tensors)}
    text = json.dumps({**notes, NOTES_DIGEST: _digest_of_notes(notes)})
    with durable(path) as file:
        file.write(_safetensors().torch.save(tensors, {"format": "pt", METADATA: text}))


def _digest_of_notes(notes: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(notes, sort_keys=True).encode()).hexdigest()


def _has_lost_notes(header: Mapping[str, str]) -> bool:
    """Return True if the header has our notes under a damaged key."""
    return any(f'"{NOTES_DIGEST}"' in text for key, text in header.items() if key != METADATA)


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
