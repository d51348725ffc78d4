"""Reading and writing weight files: PyTorch's (see ``pickled``) or safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.checkpoints.digests import check_digests, digest_beside
from swinv2_backbone.checkpoints.durable import durable
from swinv2_backbone.checkpoints.file_kinds import Kind, kind_of
from swinv2_backbone.checkpoints.pickled import read_pickled

PICKLED = (".pth", ".pt", ".bin")  # suffixes to write; files to read may have any
SAFETENSORS = ".safetensors"
METADATA = "swinv2_backbone"  # the key of our notes in a file
NOTES_DIGEST = "notes_sha256"  # key of the digest of the other notes, which earlier files lack
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # names in a Hugging Face folder


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
    check_digests(path)
    if kind_of(path) is Kind.SAFETENSORS:
        return _read_safetensors(path)
    value = read_pickled(path, extras)
    return Content(value, _notes(value.get(METADATA) if isinstance(value, Mapping) else None))


def _notes(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, Mapping) else {}


def weights_in_folder(path: Path) -> Path:
    """Return the weight file in the folder of a Hugging Face model; any other path unchanged.

    Raises:
        FileNotFoundError: the folder has none.
    """
    if not path.is_dir():
        return path
    for name in IN_FOLDER:
        if (path / name).is_file():
            return path / name
    raise FileNotFoundError(f"the folder {str(path)!r} has none of {', '.join(IN_FOLDER)}")


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
    digest_beside(path).unlink(missing_ok=True)  # that of the file that is replaced
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
