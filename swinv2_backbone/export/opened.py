"""Opening an exported file of any format."""

from __future__ import annotations

import zipfile
from pathlib import Path

from swinv2_backbone.export.formats import FORMATS, Format, Run


def open_exported(path: Path) -> tuple[Run, dict[str, str]]:
    """Return a function that runs an exported file on the CPU, and the file's notes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is of no known format, or its format needs a library that is not installed.
    """
    if not path.exists():
        raise FileNotFoundError(f"no exported file {str(path)!r}")
    name, format = _format_of(path)
    if missing := format.missing():
        raise ValueError(f"{path}: the format {name} {missing}")
    try:
        return format.read(path)
    except Exception as error:  # each library has kinds of its own, many of them RuntimeError
        raise ValueError(
            f"{path} is incomplete or damaged, or not a file of {name}: copy it again, or export "
            f"the model again ({_first_line(error)})"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]


def _format_of(path: Path) -> tuple[str, Format]:
    found = {name: format for name, format in FORMATS.items() if format.suffix == path.suffix}
    if not found:
        suffixes = ", ".join(dict.fromkeys(format.suffix for format in FORMATS.values()))
        raise ValueError(f"{path} is no exported file: those end in {suffixes}")
    if len(found) > 1:  # both of PyTorch's formats are archives with the same suffix
        compiled = zipfile.is_zipfile(path) and any(
            "aotinductor" in entry for entry in zipfile.ZipFile(path).namelist()
        )
        return ("aoti", found["aoti"]) if compiled else ("torch-export", found["torch-export"])
    return next(iter(found.items()))
