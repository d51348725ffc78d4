"""Reading and writing weight files without executing code from them.

Pickled files (.pth, .pt, .bin) are only read by torch's restricted unpickler.  Classes that benign
training scripts store beside the weights (a config, numpy scalars) are replaced by inert stand-ins;
any other class is refused.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinv2_backbone.checkpoints.durable import digest_on_disk, durable
from swinv2_backbone.variants import RELEASES

PICKLED = (".pth", ".pt", ".bin")
SAFETENSORS = ".safetensors"
METADATA = "swinv2_backbone"  # the key of our notes in a file
IN_FOLDER = ("model.safetensors", "pytorch_model.bin")  # names in a Hugging Face folder

# Name of a published file -> first digits of its SHA-256.
DIGESTS = {
    Path(release.path).name: Path(release.path).stem.rpartition("-")[2]
    for release in RELEASES.values()
}


class _Inert:
    """A stand-in for an unused object, which accepts any arguments and does nothing."""

    def __new__(cls, *args: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Classes in benign files, beside tensors and plain data.  None of the named classes is ever called.
HONEST_EXTRAS: list[Callable | tuple[Callable, str]] = [
    (OrderedDict, "yacs.config.CfgNode"),
    (OrderedDict, "fvcore.common.config.CfgNode"),
    (OrderedDict, "detectron2.config.config.CfgNode"),
    (OrderedDict, "mmengine.config.config.ConfigDict"),
    (_Inert, "argparse.Namespace"),
    (_Inert, "numpy._core.multiarray.scalar"),
    (_Inert, "numpy.core.multiarray.scalar"),
    (_Inert, "numpy._core.multiarray._reconstruct"),
    (_Inert, "numpy.core.multiarray._reconstruct"),
    (_Inert, "numpy.ndarray"),
    (_Inert, "numpy.dtype"),
    (_Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
    (_Inert, "pathlib.PosixPath"),
    (_Inert, "pathlib._local.PosixPath"),
    (_Inert, "pathlib.WindowsPath"),
]


class Content(NamedTuple):
    """The content of a file: the object itself, and our notes about it, if there are any."""

    value: Any
    metadata: dict[str, Any]


def read_file(path: Path, extras: bool = True) -> Content:
    """Read a weight file.

    Args:
        path: the file.
        extras: accept the classes of benign files, as inert objects; False allows nothing but
            tensors and plain data, for files of which everything is used.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, would run code, or is of an unknown kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {str(path)!r}")
    _check_digest(path)
    if path.suffix == SAFETENSORS:
        return _read_safetensors(path)
    if path.suffix in PICKLED:
        value = _read_pickled(path, extras)
        return Content(value, _notes(value.get(METADATA) if isinstance(value, Mapping) else None))
    raise ValueError(
        f"{path}: weights are read from {', '.join((*PICKLED, SAFETENSORS))} files. "
        "(A .pkl runs code when it is read: save it again, on a machine where you trust it, with "
        "torch.save as a dict of tensors.)"
    )


def _notes(found: Any) -> dict[str, Any]:
    return dict(found) if isinstance(found, Mapping) else {}


def _check_digest(path: Path) -> None:
    """Compare a published file with the start of its SHA-256 in its name."""
    expected = DIGESTS.get(path.name)
    if expected is None:
        return
    found = digest_on_disk(path)
    if not found.startswith(expected):
        raise ValueError(
            f"{path} is damaged: its SHA-256 starts with {found[:8]}, not {expected}; delete it "
            "and fetch it again"
        )


def _read_pickled(path: Path, extras: bool) -> Any:
    if torch.__version__ < "2.10":  # TorchVersion compares numbers, not strings
        raise ValueError(
            f"{path}: PyTorch {torch.__version__} can be made to run code by a pickled file even "
            "with weights_only=True (CVE-2025-32434, CVE-2026-24747): update PyTorch to 2.10, or "
            "take a .safetensors file"
        )
    check_archive(path)
    try:
        with torch.serialization.safe_globals(HONEST_EXTRAS if extras else []):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is no plain weight file, and reading it might run code "
            f"({_reason(error)})"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error


def check_archive(path: Path) -> None:
    """Raise ValueError if a record of a file written by torch.save differs from its checksum.

    Such a file is a zip archive with a checksum of each record, which torch.load does not check.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return  # the format before PyTorch 1.6 has no checksums
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise ValueError(f"{path} is damaged or cut short: {error}") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged: the checksum of its record {damaged!r} is wrong")


def _reason(error: Exception) -> str:
    """Return the reason of an error without torch's advice to switch the protection off.

    torch raises the error with the advice while it handles the unpickler's own error.
    """
    if isinstance(error.__context__, pickle.UnpicklingError):
        error = error.__context__
    text = str(error).strip() or type(error).__name__
    for advice in (" Please use `torch", " In PyTorch 2.6", "\n"):
        text = text.partition(advice)[0]
    return text


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


def write_file(
    path: Path, content: Mapping[str, Any], metadata: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Write a dict of tensors (.safetensors), or of anything that torch.save accepts.

    The file appears whole or not at all.

    Args:
        path: .safetensors, .pth, .pt or .bin.
        content: the dict.
        metadata: our notes, for the header of a .safetensors file; the caller puts those of a
            pickled file into its content.
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
