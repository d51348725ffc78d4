"""The images of a large run: from folders, lists, tables of paths and tar files, in a fixed order.

Paths of lists and tables are not looked up: a missing file is one of the failed images of the run.
"""

from __future__ import annotations

import csv
import glob
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, cast

from detectron2.utils.file_io import PathManager

from swinv2_backbone.d2.data.loading.bands import BAND_SUFFIXES
from swinv2_backbone.d2.inference.inputs import find_inputs
from swinv2_backbone.images.kinds import IMAGE_SUFFIXES, VIDEO_SUFFIXES, is_hidden, visible_files
from swinv2_backbone.images.opening import Opener

EXTRA = "pip install 'swinv2_backbone[parquet]'"
TABLES = (".csv", ".parquet")
COMPRESSED = (".7z", ".bz2", ".gz", ".tgz", ".xz", ".zip", ".zst")


class Source(NamedTuple):
    """An image: a file, or ``size`` bytes at ``offset`` of a tar file.

    ``name`` is its ``file_name`` in the results; for an image in a tar file, ``a.tar/photo.jpg``.
    """

    name: str
    archive: str = ""
    offset: int = 0
    size: int = 0

    def opener(self, folder: str) -> Opener:
        """Return a function that opens this image, whatever name it is asked for.

        Args:
            folder: where relative paths start.
        """
        return lambda name, mode: self._open(folder)

    def _open(self, folder: str) -> IO[bytes]:
        if not self.archive:
            address = self.name if "://" in self.name else os.path.join(folder, self.name)
            return PathManager.open(address, "rb")
        with open(os.path.join(folder, self.archive), "rb") as file:
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise OSError(f"{self.archive} ends within {self.name}")
        if not self.name.endswith(".npy"):
            return io.BytesIO(data)
        # NumPy maps arrays of files that have a name.
        array = tempfile.NamedTemporaryFile(suffix=".npy")  # noqa: SIM115  (the caller closes it)
        array.write(data)
        array.flush()
        return cast(IO[bytes], array)


class Sources:
    """An iterable of the images of ``--input``, each once; it counts the files passed over.

    Args:
        entries: images, folders, glob patterns, tar files, lists (.txt), tables (.csv, .parquet).
        recursive: also search the subfolders of folders.
        column: name of the tables' column of paths.
        bands: find images of the format "BANDS" instead.

    Raises:
        ValueError: when iterated: an entry does not exist, or has no images; a tar file cannot be
            read; a table has no such column.
    """

    def __init__(
        self,
        entries: Sequence[str],
        recursive: bool = False,
        column: str = "file_name",
        bands: bool = False,
    ):
        self.entries, self.recursive, self.column = entries, recursive, column
        self.suffixes = BAND_SUFFIXES if bands else IMAGE_SUFFIXES
        self.passed_over: list[Path] = []

    def __iter__(self) -> Iterator[Source]:
        seen: set[str] = set()
        for entry in self.entries:
            found = False
            for source in self._of(entry):
                found = True
                if source.name not in seen:
                    seen.add(source.name)
                    yield source
            if not found:
                raise ValueError(f"--input {entry!r}: there are no images")

    def _of(self, entry: str) -> Iterator[Source]:
        if os.path.isdir(entry):
            yield from self._in_folder(entry)
        elif os.path.exists(entry):
            yield from self._in_file(entry)
        else:
            matches = sorted(glob.iglob(entry, recursive=True))
            if not matches:
                raise ValueError(f"--input {entry!r} does not exist")
            for match in matches:
                if not os.path.isdir(match):
                    yield from self._in_file(match, given=False)

    def _in_folder(self, folder: str) -> Iterator[Source]:
        for path in visible_files(folder) if self.recursive else sorted(Path(folder).iterdir()):
            if self._is_image(path) and not path.is_dir():
                yield Source(str(path))
            else:
                self.passed_over.append(path)

    def _in_file(self, path: str, given: bool = True) -> Iterator[Source]:
        suffix = Path(path).suffix.lower()
        if suffix == ".tar":
            yield from self._in_archive(path)
        elif suffix in TABLES:
            read = _of_csv if suffix == ".csv" else _of_parquet
            yield from map(Source, read(path, self.column))
        elif suffix == ".txt":
            yield from map(Source, _of_list(path))
        elif given:
            yield self._given(path)
        elif self._is_image(Path(path)):
            yield Source(path)
        else:
            self.passed_over.append(Path(path))

    def _given(self, path: str) -> Source:
        suffix = Path(path).suffix.lower()
        if suffix in VIDEO_SUFFIXES:
            raise ValueError(f"--input {path!r} is a video: predict it with --output")
        if suffix in COMPRESSED:
            raise ValueError(
                f"--input {path!r} is compressed: images are read from plain .tar files"
            )
        find_inputs([path], self.suffixes is BAND_SUFFIXES)  # an image without its usual suffix?
        return Source(path)

    def _in_archive(self, path: str) -> Iterator[Source]:
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them
                    name = Path(path, member.name)
                    if not member.isfile() or member.issparse():
                        continue
                    if self._is_image(name):
                        yield Source(str(name), path, member.offset_data, member.size)
        except tarfile.TarError as error:
            raise ValueError(
                f"--input {path!r}: {error}; images are read from whole, plain .tar files"
            ) from error

    def _is_image(self, path: Path) -> bool:
        return path.suffix.lower() in self.suffixes and not is_hidden(path.name)


def _of_list(path: str) -> Iterator[str]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        for line in file:
            if name := line.rstrip("\r\n"):
                yield name


def _of_csv(path: str, column: str) -> Iterator[str]:
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.DictReader(file)
        _require_column(path, column, list(rows.fieldnames or ()))
        for row in rows:
            yield _path_in(row[column], path, column)


def _of_parquet(path: str, column: str) -> Iterator[str]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ImportError(f"--input {path!r} needs pyarrow: {EXTRA}") from error
    with ParquetFile(path) as file:
        _require_column(path, column, file.schema_arrow.names)
        for batch in file.iter_batches(columns=[column]):
            for value in batch.column(0).to_pylist():
                yield _path_in(value, path, column)


def _require_column(path: str, column: str, columns: list[str]) -> None:
    if column not in columns:
        raise ValueError(
            f"--input {path!r} has no column {column!r}, only {', '.join(columns)}: choose the "
            "column of paths by --column NAME"
        )


def _path_in(value: object, path: str, column: str) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"--input {path!r}: the column {column!r} holds {value!r}, not a path")
    return value
