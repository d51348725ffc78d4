"""Exported files that are cut short, and exports that are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from processes import start

from swinv2_backbone import SwinV2
from swinv2_backbone.d2.export.evaluate import load_exported
from swinv2_backbone.export.check import random_pixels
from swinv2_backbone.export.exportable import exportable_model
from swinv2_backbone.export.file import export_file
from swinv2_backbone.export.formats import FORMATS, Options

CUTS = {"empty": 0.0, "middle": 0.5, "last_byte": 1.0}
KINDS = {  # format -> the suffix of the file to cut
    "torch-export": [".pt2"],
    "onnx": [".onnx"],
    "openvino": [".xml", ".bin"],
    "aoti": [".pt2"],
}
PARTS = [
    pytest.param(name, suffix, marks=[pytest.mark.slow] if name == "aoti" else [])
    for name, suffixes in KINDS.items()
    for suffix in suffixes
]


def export(folder: Path, name: str, check=lambda path: None) -> Path:
    folder.mkdir(exist_ok=True)
    stage = {"embed_dim": 8, "depths": (1,), "num_heads": (2,), "window_size": 3}
    found = exportable_model(SwinV2(**stage, out_features=("res2",)).eval())
    path = folder / f"model{FORMATS[name].suffix}"
    notes = {"what": "semantic", "mean": json.dumps([0.0] * 3), "input": "images, RGB, pixels"}
    export_file(
        *(found.model, found.expected, path, FORMATS[name], [random_pixels((1, 3, 16, 16))]),
        notes=notes,
        options=Options(fixed=True),
        check=check,
    )
    return path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Return a function that exports to a format, once."""
    made: dict[str, Path] = {}
    top = tmp_path_factory.mktemp("exported")

    def get(name: str) -> Path:
        if missing := FORMATS[name].missing():
            pytest.skip(missing)
        if name not in made:
            made[name] = export(top / name, name)
        return made[name]

    return get


@pytest.mark.parametrize("share", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize(("name", "suffix"), PARTS)
@pytest.mark.heavy
def test_a_cut_exported_file_is_named_with_the_remedy(whole, name, suffix, share, tmp_path):
    folder = tmp_path / "copied"
    shutil.copytree(whole(name).parent, folder)
    path = folder / whole(name).name
    load_exported(path, "RGB")
    part = path.with_suffix(suffix)
    content = part.read_bytes()
    part.write_bytes(content[: min(int(share * len(content)), len(content) - 1)])
    if share == 1 and content.endswith(b"</net>\n"):  # nothing is lost
        load_exported(path, "RGB")
        return
    words = f"{path} is incomplete or damaged.*: copy it again, or export the model again"
    with pytest.raises(ValueError, match=words):
        load_exported(path, "RGB")


@pytest.mark.heavy
def test_a_killed_export_leaves_no_file_of_its_name(tmp_path):
    def killed(path: Path) -> None:
        assert path.is_file()
        os.kill(os.getpid(), signal.SIGKILL)

    process = start(export, tmp_path, "torch-export", killed)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "model.pt2").exists()
    assert len(list(tmp_path.iterdir())) == 1  # the unfinished one
    assert export(tmp_path, "torch-export").is_file()
