"""The wheel: all rooms, the recipes, the command, no instrument; the same from the sdist."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from commands import CPU, LAZY_CPU, SHORT
from scripts import CONFIGS, ROOT
from setuptools import find_packages
from small_configs import SMALL

import swinv2_backbone

COMPILED = "swinv2_backbone/kernels/cpu/native/_kernels.abi3.so"


def rooms() -> set[str]:
    """Return the folders of the package that have Python files, as dotted names."""
    files = (ROOT / "swinv2_backbone").rglob("*.py")
    return {".".join(file.relative_to(ROOT).parent.parts) for file in files}


def test_every_room_is_a_package_that_setup_finds():
    assert set(find_packages(str(ROOT), include=["swinv2_backbone*"])) == rooms()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    return build(copy_of_sources(folder), folder)


@pytest.mark.slow
def test_the_wheel_is_the_package_and_its_recipes_and_nothing_else(wheel):
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    package = ROOT / "swinv2_backbone"
    expected = {str(file.relative_to(ROOT)) for file in package.rglob("*.py")}
    expected |= {f"swinv2_backbone/{name}" for name in ("py.typed", "constraints.txt")}
    expected |= {COMPILED} if shutil.which("gcc") else set()
    recipes = [file for suffix in ("py", "yaml") for file in CONFIGS.rglob(f"*.{suffix}")]
    assert names == expected | {f"swinv2_backbone/{file.relative_to(ROOT)}" for file in recipes}
    assert f"-{swinv2_backbone.__version__}-" in wheel.name


@pytest.mark.slow
def test_a_wheel_is_built_without_a_compiler(tmp_path, monkeypatch):
    for variable in ("CC", "CXX"):
        monkeypatch.setenv(variable, "false")  # the program that only fails
    assert COMPILED not in contents(build(copy_of_sources(tmp_path), tmp_path))


@pytest.mark.slow
def test_the_sdist_builds_the_same_wheel(wheel, tmp_path):
    sources = copy_of_sources(tmp_path)
    code = f"import setuptools.build_meta as b; print(b.build_sdist({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=sources, stdout=subprocess.DEVNULL)
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert contents(build(unpacked, tmp_path / "again")) == contents(wheel)


@pytest.mark.slow
def test_the_installed_wheel_works_without_the_repository(wheel, tmp_path):
    """Demo's data, training in both dialects, evaluation, prediction and export, from a wheel."""
    with zipfile.ZipFile(wheel) as file:
        file.extractall(tmp_path / "site")

    def swinv2(*argv: str) -> str:
        # Not -m: that would put the folder of the repository's own installation first.
        code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        code += "from swinv2_backbone.cli.main import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *argv],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    folder = json.loads(swinv2("info", "--json"))["swinv2_backbone"]["folder"]
    assert folder.endswith(f"{tmp_path.name}/site/swinv2_backbone")
    swinv2("make-demo-dataset", "datasets/demo", *SHORT["make_demo_dataset"][0])
    steps = ("SOLVER.MAX_ITER", "2", "OUTPUT_DIR", "output")
    swinv2("train", "mask_rcnn_swinv2_demo", *CPU, *SMALL, *steps)
    lazy = ("train.max_iter=2", "train.output_dir=lazy", "dataloader.train.total_batch_size=2")
    size = [f"model.backbone.bottom_up.{key}" for key in ("embed_dim=16", "depths=[1,1,1,1]")]
    swinv2("train", "mask_rcnn_swinv2_demo.py", LAZY_CPU, *lazy, *size)
    swinv2("demo", "--pictures", "2", *CPU, *SMALL, *steps)
    for run in ("output", "lazy"):
        assert "Evaluation results" in swinv2("eval", run)
    swinv2("predict", "output", "datasets/demo/val", "--output", "drawn")
    assert list((tmp_path / "drawn").glob("*.png"))
    swinv2(*("export", "output", "--what", "backbone"), *("--format", "onnx", "--output", "b.onnx"))
    assert "already installed" in swinv2("install-detectron2")


def build(sources: Path, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--no-build-isolation", "--wheel-dir", str(folder), str(sources)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


def copy_of_sources(folder: Path) -> Path:
    """Copy what setup.py reads, as a build leaves files beside it."""
    copy = folder / "sources"
    ignore = shutil.ignore_patterns("__pycache__", "*.so")
    for name in ("swinv2_backbone", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    shutil.copy(ROOT / "constraints.txt", copy)
    return copy
