"""Files of other programs, written by them where they are installed, otherwise by their start."""

from __future__ import annotations

import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protobuf message, whose length takes as many bytes as it needs."""
    length, rest = b"", len(content)
    while rest > 127:
        length, rest = length + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + content


def mindspore(path: Path) -> None:
    tensor = b"\x08\x60\x08\x03\x08\x04\x08\x04" + field(2, b"Float32") + field(3, bytes(18432))
    path.write_bytes(field(1, field(1, b"patch_embed.proj.weight") + field(2, tensor)))


def paddle(path: Path) -> None:
    content = {"norm.weight": np.ones(3), "StructuredToParameterName@@": {"norm.weight": "w_0"}}
    path.write_bytes(pickle.dumps(content, protocol=4))


def archive(path: Path, *names: str) -> None:
    with zipfile.ZipFile(path, "w") as file:
        for name in names:
            file.writestr(name, b"content")


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as file:
        file.add(__file__, "model.pth")


def numpy_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def onnx_model(path: Path) -> None:
    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph, producer_name="pytorch")
    path.write_bytes(model.SerializeToString())


def torchscript(path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(1, 1), torch.zeros(1, 1)), str(path))


def exported(path: Path) -> None:
    with path.open("wb") as file:
        torch.export.save(torch.export.export(nn.Linear(1, 1), (torch.zeros(1, 1),)), file)


def start(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content + bytes(600))


# As docs/CHECKPOINTS.md lists them -> a writer of the file, and the words of the refusal.
FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "PaddlePaddle `.pdparams`": (paddle, "a PaddlePaddle file"),
    "Keras or TensorFlow `.h5`": (start(b"\x89HDF\r\n\x1a\n"), "an HDF5 file"),
    "Keras `.keras`": (
        lambda path: archive(path, "config.json", "model.weights.h5"),
        "a Keras model",
    ),
    "TensorFlow checkpoint": (
        lambda path: path.write_bytes(bytes(99) + bytes.fromhex("57fb808b247547db")),
        "a TensorFlow checkpoint",
    ),
    "TensorFlow Lite `.tflite`": (start(b"\x1c\0\0\0TFL3"), "a TensorFlow Lite model"),
    "MindSpore `.ckpt`": (mindspore, "a MindSpore checkpoint"),
    "NumPy `.npz`": (numpy_archive, "an archive of NumPy arrays"),
    "NumPy `.npy`": (lambda path: start(b"\x93NUMPY")(path), "a NumPy array"),
    "Flax `.msgpack`": (start(b"\x81\xa6params"), "a msgpack file"),
    "ONNX": (onnx_model, "an ONNX model"),
    "GGUF": (start(b"GGUF"), "a GGUF file"),
    "TorchScript": (torchscript, "a TorchScript program"),
    "torch.export `.pt2`": (exported, "a program of torch.export"),
    "pickle of arrays, as in Detectron2's model zoo": (
        lambda path: path.write_bytes(pickle.dumps({"model": {"w": np.ones(3)}})),
        "a pickle of NumPy arrays",
    ),
    "another pickle": (
        lambda path: path.write_bytes(pickle.dumps({"a": 3})),
        "a pickle that torch.save did not write",
    ),
    "zip or tar archive": (tar, "a tar archive"),
    "compressed file": (start(b"\x1f\x8b"), "compressed"),
    "pointer of Git LFS": (
        start(b"version https://git-lfs.github.com/spec/v1"),
        "the pointer of Git LFS",
    ),
    "web page, as a failed download leaves": (start(b"<!DOCTYPE html>"), "a web page"),
}
