"""Digests of weight files: of their tensors, of their notes, and beside them."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path

import pytest
import torch

from swinv2_backbone.checkpoints.files import read_file, write_file

TENSORS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}
NOTES = {"pretrained_window_sizes": [[8, 8]], "pixel_mean": [123.675, 116.28], "range": "0 to 255"}


@pytest.fixture
def weights(tmp_path) -> Path:
    file = tmp_path / "weights.safetensors"
    write_file(file, TENSORS, NOTES)
    return file


def same_content(file: Path) -> bool:
    value, notes = read_file(file)
    return (
        value.keys() == TENSORS.keys()
        and all(torch.equal(value[key], TENSORS[key]) for key in TENSORS)
        and {key: notes.get(key) for key in NOTES} == NOTES
    )


def test_no_flipped_bit_changes_tensors_or_notes(weights):
    whole = weights.read_bytes()
    refused = 0
    for place in range(len(whole)):  # one bit of each byte
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        weights.write_bytes(flipped)
        try:
            assert same_content(weights), f"byte {place} changes the content in silence"
        except ValueError:
            refused += 1
    assert refused > 0.8 * len(whole)


def test_files_of_earlier_versions_have_no_digest_of_their_notes(weights):
    content = weights.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    notes = json.loads(header["__metadata__"]["swinv2_backbone"])
    del notes["notes_sha256"]
    header["__metadata__"]["swinv2_backbone"] = json.dumps(notes)
    text = json.dumps(header).encode()
    weights.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    assert same_content(weights)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "form",
    [
        "{digest}  {name}\n",
        "{digest}",
        "{upper} *{name}\n",
        "SHA256 ({name}) = {digest}\n",
        "sha256:{digest}",
        f"{64 * 'a'}  other.pth\n{{digest}}  {{name}}\n",
    ],
)
def test_a_digest_beside_a_file_is_checked(form, suffix, tmp_path):
    file = tmp_path / f"mine{suffix}"
    write_file(file, TENSORS, {})
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    beside = tmp_path / f"mine{suffix}.sha256"
    beside.write_text(form.format(digest=digest, upper=digest.upper(), name=file.name))
    assert read_file(file).value.keys() == TENSORS.keys()
    beside.write_text(form.format(digest=64 * "0", upper=64 * "0", name=file.name))
    with pytest.raises(
        ValueError, match=f"is damaged: its SHA-256 starts with {digest[:8]}, not 0"
    ):
        read_file(file)


@pytest.mark.parametrize("text", ["", "abc", 63 * "0", f"{64 * '0'} a\n{64 * '1'} b\n"])
def test_a_digest_file_without_the_digest_is_ignored_with_a_warning(text, weights, caplog):
    (weights.parent / f"{weights.name}.sha256").write_text(text)
    assert same_content(weights) and "has no SHA-256 of weights.safetensors" in caplog.text


def test_a_file_that_is_replaced_takes_its_digest_along(weights):
    beside = weights.parent / f"{weights.name}.sha256"
    beside.write_text(hashlib.sha256(weights.read_bytes()).hexdigest())
    write_file(weights, {"weight": torch.zeros(3)}, {}, overwrite=True)
    assert not beside.exists() and read_file(weights).value["weight"].shape == (3,)
