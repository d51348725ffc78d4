"""No code in a weight file is executed, and damaged files are refused by name."""

from __future__ import annotations

import argparse
import os
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from checkpoint_files import SMALL, TINY, assert_equal, published, small_classifier
from omegaconf import OmegaConf
from publishers import TRAINING_FILES, native_state, save
from torch import Tensor

from swinv2_backbone import load_checkpoint, save_checkpoint
from swinv2_backbone.checkpoints import digests, files, pickled
from swinv2_backbone.checkpoints.read import read_checkpoint


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return native_state(SMALL, num_classes=10)


class Hostile:
    """An object whose pickle creates a file when it is loaded without protection."""

    def __init__(self, sentinel: Path):
        self.sentinel = sentinel

    def __reduce__(self):
        return os.system, (f"touch {self.sentinel}",)


class HostileEval(Hostile):
    def __reduce__(self):
        return eval, (f"open({str(self.sentinel)!r}, 'w').close()",)


class HostileSetState(Hostile):
    """A class that looks harmless, whose state is the attack."""

    def __reduce__(self):
        return __import__("functools").partial(os.system, f"touch {self.sentinel}"), ()


def write_torch(content, path: Path) -> None:
    torch.save(content, path)


def write_legacy(content, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_pickle(content, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("hostile", [Hostile, HostileEval, HostileSetState])
@pytest.mark.parametrize("place", ["beside", "among"])
@pytest.mark.parametrize("writer", [write_torch, write_legacy, write_pickle])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".pkl", ".safetensors"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")  # of write_pickle
@pytest.mark.heavy
def test_hostile_files_execute_nothing(hostile, place, writer, suffix, state, tmp_path):
    sentinel, path = tmp_path / "executed", tmp_path / f"evil{suffix}"
    weights = {key: value for key, value in state.items() if "norm" in key}
    if place == "beside":
        writer({"model": weights, "config": hostile(sentinel)}, path)
    else:
        writer({**weights, "layers.0.blocks.0.attn.logit_scale": hostile(sentinel)}, path)
    with pytest.raises(ValueError, match=f"evil{suffix}"):
        load_checkpoint(small_classifier(), path)
    assert not sentinel.exists()


def test_the_hostile_files_of_these_tests_are_hostile(tmp_path):
    for index, hostile in enumerate([Hostile, HostileEval, HostileSetState]):
        sentinel, path = tmp_path / f"executed{index}", tmp_path / "evil.pth"
        torch.save({"model": {}, "config": hostile(sentinel)}, path)
        torch.load(path, weights_only=False)
        assert sentinel.exists()


def test_the_refusal_does_not_advise_to_switch_safety_off(tmp_path):
    torch.save({"config": Hostile(tmp_path / "executed")}, tmp_path / "evil.pth")
    with pytest.raises(ValueError) as error:
        load_checkpoint(small_classifier(), tmp_path / "evil.pth")
    text = str(error.value)
    assert "might run code" in text and "posix.system" in text
    for advice in ("weights_only", "safe_globals", "trust"):
        assert advice not in text


@pytest.mark.parametrize("publisher", TRAINING_FILES)
@pytest.mark.heavy
def test_benign_extras_need_no_unsafe_loading(publisher, tmp_path):
    """The extras are a yacs node, numpy scalars, a Namespace, and mmengine's history."""
    content = TRAINING_FILES[publisher](native_state(TINY), TINY)
    save(content, tmp_path / "x.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "x.pth", weights_only=True)  # torch alone refuses them all
    assert read_checkpoint(tmp_path / "x.pth").tensors


def test_allowed_extras_do_nothing_even_with_a_hostile_state(tmp_path):
    """The accepted names are replaced by inert objects."""
    for stand_in, name in pickled.BENIGN_CLASSES:
        assert stand_in in (pickled.Inert, pickled.Recorded, OrderedDict), name
    inert = pickled.Inert("touch", Hostile)
    inert.__setstate__({"x": 1})
    assert vars(inert) == {}
    recorded = pickled.Recorded("touch", Hostile)
    for state in ("touch", {"__class__": Hostile, "x": 1}):
        recorded.__setstate__(state)
    assert type(recorded) is pickled.Recorded and recorded.state == {"__class__": Hostile, "x": 1}


def test_settings_are_plain_data(tmp_path):
    arguments = argparse.Namespace(
        model="x", kwargs={"window": [12, 12]}, path=Path("x"), none=None
    )
    arguments.itself = arguments
    torch.save({"args": arguments}, tmp_path / "x.pth")
    found = pickled.plain(files.read_file(tmp_path / "x.pth").value)["args"]
    assert found["kwargs"] == {"window": [12, 12]} and found["path"] is None
    while found["itself"] is not None:  # it ends
        found = found["itself"]
    node = OmegaConf.create({"model": {"window_size": 12, "sizes": [256, 256], "rate": "${lr}"}})
    torch.save({"hyper_parameters": node}, tmp_path / "y.pth")
    found = pickled.plain(files.read_file(tmp_path / "y.pth").value)["hyper_parameters"]
    assert found == {"model": {"window_size": 12, "sizes": [256, 256], "rate": "${lr}"}}


def test_pickled_files_need_a_torch_without_known_vulnerabilities(state, tmp_path, monkeypatch):
    path = published(state, SMALL, "microsoft", tmp_path)
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    with pytest.raises(ValueError, match="PyTorch 2.9.1.*CVE-2026-24747.*safetensors"):
        load_checkpoint(small_classifier(), path)


# --- damaged files ---------------------------------------------------------------------------


@pytest.fixture(params=[".pth", ".safetensors"])
def good_file(request, tmp_path) -> Path:
    path = tmp_path / f"good{request.param}"
    save_checkpoint(small_classifier(), path)
    return path


def test_truncated_files_are_refused_by_name(good_file, tmp_path):
    content = good_file.read_bytes()
    cut = tmp_path / f"cut{good_file.suffix}"
    for hundredth in range(100):
        cut.write_bytes(content[: len(content) * hundredth // 100])
        with pytest.raises(ValueError, match=cut.name):
            read_checkpoint(cut)
    cut.write_bytes(content[:-1])
    with pytest.raises(ValueError, match=cut.name):
        read_checkpoint(cut)


@pytest.mark.heavy
def test_flipped_bits_never_change_weights_silently(good_file, tmp_path):
    """A flipped bit is refused, or lies in padding or an unused name and changes no weight."""
    content = good_file.read_bytes()
    expected = read_checkpoint(good_file)
    flipped = tmp_path / f"flipped{good_file.suffix}"
    generator, refused = random.Random(0), 0
    for _ in range(200):
        place = generator.randrange(len(content) * 8)
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        flipped.write_bytes(damaged)
        try:
            found = read_checkpoint(flipped)
        except ValueError as error:
            assert flipped.name in str(error)
            refused += 1
        else:
            assert_equal(found.tensors, expected.tensors)
            assert found.pretrained_windows.sizes == expected.pretrained_windows.sizes
    assert refused > 150


def test_published_files_are_checked_against_the_hash_in_their_names(state, tmp_path, monkeypatch):
    path = published(state, SMALL, "microsoft", tmp_path)
    monkeypatch.setitem(digests.DIGESTS, path.name, "01234567")
    with pytest.raises(ValueError, match=r"microsoft.pth is damaged: its SHA-256 .*not 01234567"):
        read_checkpoint(path)
    assert digests.DIGESTS["swinv2-tiny-w8_3rdparty_in1k-256px_20220803-e318968f.pth"] == "e318968f"
    assert sum(len(digest) == 8 for digest in digests.DIGESTS.values()) >= 12


def test_a_wrong_checksum_in_an_archive_is_named(state, tmp_path):
    path = published(state, SMALL, "microsoft", tmp_path)
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    content[record.header_offset + 2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checksum of its record .*data/"):
        read_checkpoint(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth"):
        read_checkpoint(tmp_path / "nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors"):
        read_checkpoint(tmp_path)


# --- writing ---------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_asked(good_file):
    before = good_file.read_bytes()
    with pytest.raises(FileExistsError, match="exists; give --overwrite"):
        save_checkpoint(small_classifier(), good_file)
    assert good_file.read_bytes() == before
    model = small_classifier()
    save_checkpoint(model, good_file, overwrite=True)
    assert torch.equal(read_checkpoint(good_file).head["weight"], model.head.weight)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(good_file, monkeypatch):
    before = good_file.read_bytes()

    def fail(*args) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(small_classifier(), good_file, overwrite=True)
    assert good_file.read_bytes() == before
    assert [path.name for path in good_file.parent.iterdir()] == [good_file.name]


def test_unknown_layouts_and_suffixes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown layout 'keras'; there are: native"):
        save_checkpoint(small_classifier(), tmp_path / "x.pth", "keras")
    with pytest.raises(ValueError, match=r"x.ckpt: write to .safetensors"):
        save_checkpoint(small_classifier(), tmp_path / "x.ckpt")
    with pytest.raises(ValueError, match=r"x.bin: Detectron2's checkpointer reads .pth files"):
        save_checkpoint(small_classifier(), tmp_path / "x.bin", "detectron2")
    assert not list(tmp_path.iterdir())
