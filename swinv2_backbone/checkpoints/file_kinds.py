"""The kind of a weight file, recognized by its content: the name of a file decides nothing.

PyTorch's files (a zip archive since version 1.6, a pickle before) and safetensors files are read.
Files of other programs are named, each with the way to convert it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

ZIP = b"PK\x03\x04"
# The number 0x1950a86a20f9469cfc6c, which torch.save wrote first before PyTorch 1.6.
BEFORE_ZIP = b"\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
LARGEST_HEADER = 100_000_000  # bytes, the limit of safetensors itself
READ = 1 << 16  # bytes at the start of a file that are looked at
TABLE_END = bytes.fromhex("57fb808b247547db")  # of the tables in TensorFlow's checkpoints
PADDLE = b"StructuredToParameterName@@"

RESAVE = "convert it to a state dict of a layout in docs/CHECKPOINTS.md, saved by torch.save"
PICKLE = (
    "a pickle runs code when it is read: save it again, on a machine where you trust it, with "
    "torch.save as a dict of tensors"
)
FETCH = "download it again"
UNPACK = "unpack it, and give the weight file in it"


class Kind(Enum):
    """The two kinds of files that are read."""

    PYTORCH = "PyTorch"
    SAFETENSORS = "safetensors"


class Foreign(NamedTuple):
    """A kind of file that is not read: its name, and the remedy."""

    name: str
    remedy: str = RESAVE


# Where the bytes are, the bytes, and what they stand for.
MAGIC: tuple[tuple[int, bytes, Foreign], ...] = (
    (0, b"\x89HDF\r\n\x1a\n", Foreign("an HDF5 file, as Keras and TensorFlow write (.h5)")),
    (0, b"\x93NUMPY", Foreign("a NumPy array (.npy)")),
    (0, b"GGUF", Foreign("a GGUF file of llama.cpp")),
    (4, b"TFL3", Foreign("a TensorFlow Lite model")),
    (257, b"ustar", Foreign("a tar archive", UNPACK)),
    (0, b"\x1f\x8b", Foreign("compressed (gzip)", "unpack it")),
    (0, b"BZh", Foreign("compressed (bzip2)", "unpack it")),
    (0, b"\xfd7zXZ\x00", Foreign("compressed (xz)", "unpack it")),
    (0, b"\x28\xb5\x2f\xfd", Foreign("compressed (zstd)", "unpack it")),
    (0, b"7z\xbc\xaf\x27\x1c", Foreign("compressed (7z)", "unpack it")),
    (
        0,
        b"version https://git-lfs",
        Foreign("the pointer of Git LFS to a file, not the file", "run git lfs pull"),
    ),
)


def kind_of(path: Path) -> Kind:
    """Return the kind of a weight file.

    Raises:
        ValueError: the file is empty, damaged, or of a kind that is not read.
    """
    with path.open("rb") as file:
        head = file.read(READ)
    if not head:
        raise ValueError(f"{path} is empty")
    if head.startswith(ZIP):
        found = _in_archive(path)
    elif BEFORE_ZIP in head[:20]:
        return Kind.PYTORCH
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < LARGEST_HEADER:
        return Kind.SAFETENSORS
    else:
        found = _foreign(path, head)
    if isinstance(found, Kind):
        return found
    raise ValueError(f"{path} is {found.name}, which is not read: {found.remedy}")


def _in_archive(path: Path) -> Kind | Foreign:
    """Return the kind of a zip archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # a damaged file can raise anything
        raise ValueError(f"{path} is damaged or cut short: {error}") from error
    inner = {name.partition("/")[2] for name in names}  # without PyTorch's own top folder
    if "constants.pkl" in inner:
        return Foreign("a TorchScript program", "save the state_dict() of the model instead")
    if "data.pkl" in inner:
        return Kind.PYTORCH
    if {"archive_format", "serialized_exported_program.json"} & (inner | set(names)):
        return Foreign("a program of torch.export", "save the state_dict() of the model instead")
    if all(name.endswith(".npy") for name in names):
        return Foreign("an archive of NumPy arrays (.npz)")
    if "model.weights.h5" in names:
        return Foreign("a Keras model (.keras)")
    return Foreign(
        f"a zip archive of {', '.join(names[:3])}", "unpack it, and give the weight file"
    )


def _foreign(path: Path, head: bytes) -> Foreign:
    for place, magic, found in MAGIC:
        if head[place : place + len(magic)] == magic:
            return found
    for is_that, found in TESTS:
        if is_that(path, head):
            return found
    start = head[:16].decode("ascii", errors="replace")
    return Foreign(f"neither a PyTorch nor a safetensors file (it starts with {start!r})", FETCH)


def _tail(path: Path, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - length, 0))
        return file.read()


def _is_text(*starts: bytes) -> Callable[[Path, bytes], bool]:
    return lambda path, head: head.lstrip()[:20].lower().startswith(starts)


def _is_pickle(path: Path, head: bytes) -> bool:
    return head[0] == 0x80 and len(head) > 1 and head[1] <= 5


def _is_paddle(path: Path, head: bytes) -> bool:
    return _is_pickle(path, head) and PADDLE in _tail(path, 1 << 22)


def _is_numpy_pickle(path: Path, head: bytes) -> bool:
    return _is_pickle(path, head) and b"numpy" in head


def _is_mindspore(path: Path, head: bytes) -> bool:
    """Return True for Google's protobuf of (name, tensor) pairs, with the dtype in words."""
    return head[0] == 0x0A and b"\x0a" in head[1:6] and b"\x12\x07Float" in head[:512]


def _is_onnx(path: Path, head: bytes) -> bool:
    """Return True for a protobuf of a version and the name of a producer."""
    if len(head) < 4 or head[0] != 0x08 or head[2] != 0x12:
        return False
    producer = head[4 : 4 + head[3]]
    return 0 < len(producer) < 64 and producer.replace(b".", b"").isalnum()


def _is_msgpack(path: Path, head: bytes) -> bool:
    """Return True for a map whose first key is a short string."""
    return 0x81 <= head[0] <= 0x8F and len(head) > 1 and 0xA0 < head[1] <= 0xBF


# In this order, as a PaddlePaddle file is a pickle too.
TESTS: tuple[tuple[Callable[[Path, bytes], bool], Foreign], ...] = (
    (_is_paddle, Foreign("a PaddlePaddle file (.pdparams)")),
    (_is_numpy_pickle, Foreign("a pickle of NumPy arrays (.pkl)", PICKLE)),
    (_is_pickle, Foreign("a pickle that torch.save did not write", PICKLE)),
    (_is_mindspore, Foreign("a MindSpore checkpoint (.ckpt)")),
    (_is_onnx, Foreign("an ONNX model")),
    (_is_msgpack, Foreign("a msgpack file, as Flax writes")),
    (lambda path, head: _tail(path, 8) == TABLE_END, Foreign("a TensorFlow checkpoint")),
    (_is_text(b"<!doctype", b"<html"), Foreign("a web page, not a weight file", FETCH)),
    (_is_text(b"<?xml"), Foreign("an XML file, not a weight file", FETCH)),
    (_is_text(b"{", b"["), Foreign("a JSON file, not a weight file", "give the weight file")),
)
