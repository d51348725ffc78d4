"""Configs and images from untrusted sources do no harm (R7 of docs/RELIABILITY.md).

Weight files are tested in checkpoints/test_safety.py and d2/engine/test_checkpoint.py, file names
in a dataset in d2/data/test_validation.py.
"""

from __future__ import annotations

import socket
import struct
import zlib
from pathlib import Path

import pytest
import yaml

from swinv2_backbone import SwinV2, load_checkpoint
from swinv2_backbone.checkpoints.save import save_checkpoint
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.loading.images import read_image

TAGS = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/new:os.system ['touch {}']",
    "!!python/object/apply:builtins.eval [\"open('{}', 'w')\"]",
    "!!python/object/apply:subprocess.Popen [['touch', '{}']]",
]


def hostile_yaml(tag: str, sentinel: Path) -> str:
    return f"MODEL:\n  WEIGHTS: {tag.format(sentinel)}\n"


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("place", ["file", "base"])
def test_a_hostile_yaml_runs_nothing(tag, place, tmp_path):
    sentinel = tmp_path / "executed"
    path = tmp_path / "evil.yaml"
    path.write_text(hostile_yaml(tag, sentinel))
    if place == "base":
        path = tmp_path / "harmless.yaml"
        path.write_text("_BASE_: evil.yaml\nMODEL:\n  DEVICE: cpu\n")
    with pytest.raises(ValueError, match="python/object"):
        load_config(str(path))
    assert not sentinel.exists()


def test_the_hostile_yaml_of_these_tests_is_hostile(tmp_path):
    sentinel = tmp_path / "executed"
    yaml.unsafe_load(hostile_yaml(TAGS[0], sentinel))
    assert sentinel.exists()


@pytest.mark.parametrize(
    "value", ["__import__('os').system('touch {}')", "!!python/object/apply:os.system ['touch {}']"]
)
def test_a_hostile_override_is_text(value, tmp_path):
    sentinel = tmp_path / "executed"
    cfg = load_config("", ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", value.format(sentinel)])
    assert str(sentinel) in cfg.OUTPUT_DIR and not sentinel.exists()


def test_pickled_proposals_are_only_read_if_named_unsafe():
    opts = ["MODEL.DEVICE", "cpu", "MODEL.LOAD_PROPOSALS", "True"]
    with pytest.raises(ValueError, match="pickles, which can run code"):
        load_config("", opts)
    load_config("", [*opts, "DATASETS.UNSAFE_PROPOSAL_FILES", "True"])


def test_nothing_is_fetched_unless_the_source_is_a_url(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise AssertionError("something opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = SwinV2(embed_dim=32, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)
    save_checkpoint(model, tmp_path / "a.safetensors")
    load_checkpoint(model, tmp_path / "a.safetensors")
    load_config("", ["MODEL.DEVICE", "cpu"])


def test_a_picture_that_would_fill_the_memory_is_refused_by_name(tmp_path):
    """The file is a small PNG of 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(OSError, match="bomb.png"):
        read_image(path, "RGB")
