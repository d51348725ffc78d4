"""A JSON file whose long lists are read in pieces, so that their entries are never all in memory.

The annotations of COCO's 118,000 training images are 450 MB of text, and several gigabytes as
Python objects. A first pass over the bytes finds where the entries end; a second one parses them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import orjson

BLOCK = 1 << 22  # bytes scanned at once
PIECE = 1 << 20  # bytes parsed at once; a longer entry is parsed whole
QUOTE, BACKSLASH = b'"\\'
BOM = b"\xef\xbb\xbf"
_STRUCTURAL = np.zeros(256, bool)
_STRUCTURAL[list(b'"\\[]{}')] = True
_STEP = np.zeros(256, np.int8)  # change of depth
_STEP[list(b"[{")], _STEP[list(b"]}")] = 1, -1


class NotJsonError(ValueError):
    """The file is not JSON; the message says where, but does not name the file."""


@dataclass
class _List:
    """Byte positions of a list: after its opening bracket, after some of its entries, its end."""

    cuts: list[int]
    end: int = -1


class JsonLists:
    """The object in a JSON file, with the lists among its values read in pieces.

    Args:
        path: UTF-8 file that holds one JSON object; anything else has no values.

    Attributes:
        values: the values that are not lists, by key.

    Raises:
        OSError: the file cannot be read.
        NotJsonError: it is not JSON. The entries of lists are checked when they are read.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self.path.open("rb") as file:
            try:
                lists = _scan(file)
                skeleton = json.loads(_without_entries(file, lists))
            except ValueError as error:
                raise self._invalid() from error
        if not isinstance(skeleton, dict):
            skeleton = {}
        self.values = {key: one for key, one in skeleton.items() if not isinstance(one, list)}
        self._lists = {
            key: lists[one[0]] for key, one in skeleton.items() if key not in self.values
        }

    @property
    def lists(self) -> tuple[str, ...]:
        """The keys of the lists, in the order of the file."""
        return tuple(self._lists)

    def __contains__(self, key: str) -> bool:
        """Return True if ``key`` has a list."""
        return key in self._lists

    def pieces(self, key: str) -> Iterator[list]:
        """Yield the entries of a list, some at a time.

        Raises:
            NotJsonError: they are not JSON.
        """
        found = self._lists[key]
        with self.path.open("rb") as file:
            for start, end in zip(found.cuts, [*found.cuts[1:], found.end]):
                file.seek(start)
                text = file.read(end - start).strip()
                if start != found.cuts[0]:
                    if not text:
                        return
                    separator, text = text[:1], text[1:]
                    if separator != b"," or not text:
                        raise self._invalid()
                yield self._parsed(b"[" + text + b"]")

    def __getitem__(self, key: str) -> list:
        """Return a whole list."""
        return [entry for piece in self.pieces(key) for entry in piece]

    def _parsed(self, text: bytes) -> list:
        try:
            return orjson.loads(text)
        except ValueError:  # or NaN, which Python's parser accepts
            try:
                return json.loads(text)
            except ValueError as error:
                raise self._invalid() from error

    def _invalid(self) -> NotJsonError:
        """Parse the whole file for an error message with line and column."""
        try:
            json.loads(self.path.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError as error:
            return NotJsonError(f"it is not UTF-8 text, save it as that ({error})")
        except ValueError as error:
            return NotJsonError(str(error))
        return NotJsonError("it changed while it was read")


@dataclass
class _State:
    """The position of a scan between two blocks."""

    depth: int = 0
    in_string: bool = False
    escaped: bool = False  # True if the next character follows a backslash
    lists: list[_List] = field(default_factory=list)


def _scan(file: BinaryIO) -> list[_List]:
    """Return the lists that are values of the outermost object, in the order of the file."""
    state, offset = _State(), 0
    while block := file.read(BLOCK):
        _scan_block(np.frombuffer(block, np.uint8), offset, state)
        offset += len(block)
    if state.depth or state.in_string:
        raise ValueError("unfinished")
    return state.lists


def _scan_block(block: np.ndarray, offset: int, state: _State) -> None:
    position = np.flatnonzero(_STRUCTURAL[block])
    character = block[position]
    quote = (character == QUOTE) & ~_escaped(block, position, character, state)
    inside = (np.cumsum(quote) + state.in_string) % 2 == 1
    state.in_string = bool(inside[-1]) if len(inside) else state.in_string
    outside = ~inside & (_STEP[character] != 0)
    position, character = position[outside] + offset, character[outside]
    step = _STEP[character]
    depth = state.depth + np.cumsum(step, dtype=np.int64)
    state.depth = int(depth[-1]) if len(depth) else state.depth
    # The outermost values begin, and their entries end, at depth 2.
    ends = position[(depth == 2) & (step < 0)] + 1
    outer = (depth == 2) & (step > 0) | (depth == 1) & (step < 0)
    for at, bracket in zip(position[outer].tolist(), character[outer].tobytes().decode()):
        if bracket == "[":
            state.lists.append(_List([at + 1]))
        elif bracket == "]":
            _cut(state.lists[-1], ends, at)
            state.lists[-1].end = at
    if state.lists and state.lists[-1].end < 0:
        _cut(state.lists[-1], ends, offset + len(block))


def _cut(found: _List, ends: np.ndarray, limit: int) -> None:
    """Cut a list into pieces at some of the ``ends`` of its entries, which lie before ``limit``."""
    while (at := np.searchsorted(ends, found.cuts[-1] + PIECE)) < len(ends) and ends[at] <= limit:
        found.cuts.append(int(ends[at]))


def _escaped(
    block: np.ndarray, position: np.ndarray, character: np.ndarray, state: _State
) -> np.ndarray:
    """Return which of the characters follow a backslash that is not itself escaped."""
    backslashes = position[character == BACKSLASH].tolist()
    escaped = {0} if state.escaped else set()
    for at in backslashes:
        if at not in escaped:
            escaped.add(at + 1)
    state.escaped = len(block) in escaped
    return np.isin(position, list(escaped)) if escaped else np.zeros(len(position), bool)


def _without_entries(file: BinaryIO, lists: list[_List]) -> bytes:
    """Return the text with the entries of each list replaced by the number of the list."""
    parts, start = [], 0
    for number, found in enumerate(lists):
        file.seek(start)
        parts += [file.read(found.cuts[0] - start), str(number).encode()]
        start = found.end
    file.seek(start)
    return b"".join([*parts, file.read()]).removeprefix(BOM)
