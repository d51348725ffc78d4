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

from swinv2_backbone.checkpoints.durable import digest_on_disk, durable
from swinv2_backbone.checkpoints.file_kinds import Kind, kind_of
from swinv2_backbone.checkpoints.pickled import read_pickled
from swinv2_backbone.checkpoints.satlas import SATLAS
from swinv2_backbone.variants import RELEASES

PICKLED = (".pth", ".pt", ".bin")  # suffixes to write; files to read may have any
SAFETENSORS = ".safetensors"
METADATA = "swinv2_backbone"  # the key of our notes in a file
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
    """Check a published file against the start of its SHA-256, which is in its name."""
    expected = DIGESTS.get(path.name)
    if expected is None:
        return
    found = digest_on_disk(path)
    if not found.startswith(expected):
        raise ValueError(
            f"{path} is damaged: its SHA-256 starts with {found[:8]}, not {expected}; delete it "
            "and fetch it again"
        )


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
            metadata = _notes(json.loads((file.metadata() or {}).get(METADATA, "{}")))
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}") from error
    if "sha256" in metadata and metadata["sha256"] != _sha256(tensors):
        raise ValueError(f"{path} is damaged: the SHA-256 of its tensors is not the one it states")
    return Content(tensors, metadata)


def _write_safetensors(path: Path, content: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    tensors = {key: value.contiguous() for key, value in content.items()}
    notes = json.dumps({**metadata, "sha256": _sha256(tensors)})
    with durable(path) as file:
        file.write(_safetensors().torch.save(tensors, {"format": "pt", METADATA: notes}))


def _sha256(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
