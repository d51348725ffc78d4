"""Exporting a model to an int8 file, which is kept only if it is near the float file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.checkpoints.durable import unfinished
from swinv2_backbone.export.formats import FORMATS, Notes
from swinv2_backbone.export.formats.openvino import convert_onnx
from swinv2_backbone.export.int8.agreement import Comparison, compare_files
from swinv2_backbone.export.int8.kernels import count_onnxruntime, count_openvino
from swinv2_backbone.export.int8.pictures import Pictures
from swinv2_backbone.export.int8.quantize import LIMIT, Quantized, quantize_file


class Report(NamedTuple):
    """An int8 file in comparison with the float file.

    Attributes:
        quantized: the layers in 8 bits, and those in float.
        comparison: the errors of the outputs, and the time.
        calibration, compared: the numbers of pictures.
        fast: number of layers that the runtime computes in integers.
        bytes, float_bytes: sizes of the files.
    """

    quantized: Quantized
    comparison: Comparison
    calibration: int
    compared: int
    fast: int
    bytes: int
    float_bytes: int

    def lines(self) -> list[tuple[str, str]]:
        """Describe the file as (title, text)."""
        layers, kept = self.quantized.layers, self.quantized.kept
        of_all = f"of {len(layers) + len(kept)} linear layers"
        worst = sorted(((e.error, layer.name) for layer, e in kept.values()), reverse=True)
        time = self.comparison.time
        found = [
            ("int8", f"{len(layers)} {of_all}, calibrated on {self.calibration} pictures"),
            *(
                ("kept float", f"{name}: error {100 * error:.1f} % in int8")
                for error, name in worst
            ),
            ("int8 error", f"on {self.compared} other pictures: {self.comparison}"),
            ("int8 kernels", f"run {self.fast} of these {len(layers)} layers on this computer"),
            ("int8 size", f"{self.bytes / self.float_bytes:.2f} of the float file"),
            ("int8 time", f"{time:.2f} of the float file, on this computer's CPU"),
        ]
        if time > 1:
            found.append(("NOTE", "the int8 file is slower than the float file on this computer"))
        return found


def export_int8(source: Path, path: Path, name: str, pictures: Pictures, notes: Notes) -> Report:
    """Quantize a float ONNX file, compare, and move the int8 file to its path.

    Args:
        source: the float file, which equals the model.
        path: the int8 file, replaced if it exists.
        name: the format, a key of ``STORE``.
        pictures: the user's pictures.
        notes: the file's metadata.

    Raises:
        ValueError: the outputs differ too much; then no file is written.
    """
    format, (calibration, compared) = FORMATS[name], pictures.split()
    with unfinished(path) as small, tempfile.TemporaryDirectory(dir=small.parent) as scratch:
        graph, plain = Path(scratch, "int8.onnx"), Path(scratch, "float", path.name)
        plain.parent.mkdir()
        quantized = quantize_file(source, graph, calibration, compared)
        notes = {**notes, "int8": _note(quantized)}
        STORE[name](source, plain, notes)
        STORE[name](graph, small, notes)
        comparison = compare_files(format.read(small)[0], format.read(plain)[0], compared)
        if not comparison.largest <= LIMIT:
            raise ValueError(
                f"{path} was not written: in {name}, its outputs differ from the float file's by "
                f"{100 * comparison.largest:.0f} %, more than {100 * LIMIT:.0f} %"
            )
        return Report(
            quantized,
            comparison,
            len(calibration),
            len(compared),
            COUNT[name](small),
            *(_size(file) for file in (small, plain)),
        )


def _store_onnx(graph: Path, path: Path, notes: Notes) -> None:
    import onnx

    model = onnx.load(graph)
    onnx.helper.set_model_props(model, dict(notes))
    onnx.save(model, path)


Store = Callable[[Path, Path, Notes], None]
STORE: dict[str, Store] = {"onnx": _store_onnx, "openvino": convert_onnx}
COUNT = {"onnx": count_onnxruntime, "openvino": count_openvino}


def _note(quantized: Quantized) -> str:
    layers, kept = quantized
    names = ", ".join(layer.name for layer, _ in kept.values())
    rest = f"; linear layers in float: {names}" if kept else ""
    return f"{len(layers)} linear layers in int8{rest}"


def _size(path: Path) -> int:
    """Return the size of a file together with the weights beside it."""
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.stem}.*"))
