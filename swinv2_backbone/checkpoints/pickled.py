"""Reading PyTorch's files, which are pickled, without executing code from them.

They are only read by torch's restricted unpickler.  Classes that benign training scripts store
beside the weights (a config, numpy scalars) are replaced by inert stand-ins; any other class is
refused.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch


class Inert:
    """A stand-in for an unused object, which accepts any arguments and does nothing."""

    def __new__(cls, *args: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class Recorded(Inert):
    """A stand-in for an object whose attributes are settings of a training; see :func:`plain`."""

    state: Mapping[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, Mapping):
            self.state = state


# Classes in benign files, beside tensors and plain data.  None of the named classes is ever called.
BENIGN_CLASSES: list[Callable | tuple[Callable, str]] = [
    (Recorded, "argparse.Namespace"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
    (OrderedDict, "lightning.fabric.utilities.data.AttributeDict"),
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (Recorded, "omegaconf.dictconfig.DictConfig"),
    (Recorded, "omegaconf.listconfig.ListConfig"),
    (Recorded, "omegaconf.nodes.AnyNode"),
    (Inert, "omegaconf.base.ContainerMetadata"),
    (Inert, "omegaconf.base.Metadata"),
    (Inert, "collections.defaultdict"),
    (Inert, "typing.Any"),
    *((Inert, f"builtins.{name}") for name in ("int", "float", "bool", "str", "list", "dict")),
    (OrderedDict, "yacs.config.CfgNode"),
    (OrderedDict, "fvcore.common.config.CfgNode"),
    (OrderedDict, "detectron2.config.config.CfgNode"),
    (OrderedDict, "mmengine.config.config.ConfigDict"),
    (Inert, "numpy._core.multiarray.scalar"),
    (Inert, "numpy.core.multiarray.scalar"),
    (Inert, "numpy._core.multiarray._reconstruct"),
    (Inert, "numpy.core.multiarray._reconstruct"),
    (Inert, "numpy.ndarray"),
    (Inert, "numpy.dtype"),
    (Inert, "mmengine.logging.history_buffer.HistoryBuffer"),
    (Inert, "pathlib.PosixPath"),
    (Inert, "pathlib._local.PosixPath"),
    (Inert, "pathlib.WindowsPath"),
]


def read_pickled(path: Path, extras: bool) -> Any:
    """Read a file of PyTorch's.

    Args:
        path: the file.
        extras: accept :data:`BENIGN_CLASSES`.

    Raises:
        ValueError: the file is damaged, or contains other classes.
    """
    if torch.__version__ < "2.10":  # TorchVersion compares numbers, not strings
        raise ValueError(
            f"{path}: PyTorch {torch.__version__} can be made to run code by a pickled file even "
            "with weights_only=True (CVE-2025-32434, CVE-2026-24747): update PyTorch to 2.10, or "
            "use a .safetensors file"
        )
    check_archive(path)
    try:
        # A file, because torch.load reads a path that ends in .safetensors in another way.
        with (
            path.open("rb") as file,
            torch.serialization.safe_globals(BENIGN_CLASSES if extras else []),
        ):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is refused: it is not a plain weight file, and reading it might run code "
            f"({_reason(error)})"
        ) from error
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} cannot be read: {_reason(error)}") from error


def plain(value: Any, depth: int = 0) -> Any:
    """Return settings in dicts and lists; those of a Namespace or of OmegaConf as such too.

    What has no settings, or is nested too deeply, becomes None.
    """
    if depth > 50:
        return None
    if isinstance(value, Recorded):
        inner = {"_content", "_val"} & set(value.state)  # of OmegaConf's containers and leaves
        return plain(value.state[inner.pop()] if inner else value.state, depth + 1)
    if isinstance(value, Mapping):
        return {key: plain(one, depth + 1) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one, depth + 1) for one in value]
    return value if isinstance(value, str | int | float | bool) else None


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
    """Return the message of an error without torch's advice to disable the protection.

    torch raises the error with the advice while it handles the unpickler's own error.
    """
    if isinstance(error.__context__, pickle.UnpicklingError):
        error = error.__context__
    text = str(error).strip() or type(error).__name__
    for advice in (" Please use `torch", " In PyTorch 2.6", "\n"):
        text = text.partition(advice)[0]
    return text
