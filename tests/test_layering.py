"""The house: a file imports only from floors below its own, and the core needs torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import swinv2_backbone

PACKAGE = Path(swinv2_backbone.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))
FLOORS = (
    "source_digest",
    "recipes",
    "keys",
    "precision",
    "packing",
    "windows",
    "plain",
    "position_bias",
    "attention",
    "kernels",
    "layers",
    "block",
    "variants",
    "settings",
    "backbone",
    "classifier",
    "simmim",
    "checkpoints",
    "build",
    "training_memory",
    "export",
    "images",
    "d2",
    "cli",
    "__main__",
)  # from the ground up
# Inside d2, from the ground up.  The analysis of results draws what the predictor found.
PLUGIN_FLOORS = (
    "modeling",
    "solver",
    "data",
    "config",
    "evaluation",
    "engine",
    "inference",
    "suggestion",
    "evaluation.analysis",
    "export",
    "pretraining",
    "demo",
)
CORE_NEEDS = {"torch", "numpy", "swinv2_backbone", *sys.stdlib_module_names}
PLUGIN_ONLY = {"detectron2", "fvcore"}
OPTIONAL = {
    "checkpoints": {"huggingface_hub", "safetensors"},
    "kernels": {"triton"},
    "export": {
        *("ai_edge_litert", "coremltools", "cv2", "litert_torch", "ncnn", "onnx", "onnxruntime"),
        *("openvino", "pnnx", "tract"),
    },
    "images": {"PIL", "imagecodecs", "pillow_heif", "tifffile"},
}  # needed by some files only, and said so if absent


def name_of(file: Path) -> str:
    return str(file.relative_to(PACKAGE))


def floor_of(file: Path) -> str:
    """The floor a file belongs to; a file of a folder belongs to the floor of the folder."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def imports_of(file: Path) -> list[str]:
    """The dotted names that a file imports, wherever in it; ``from a import b`` is ``a.b``."""
    names = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: a relative import"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def floors_imported(file: Path) -> set[str]:
    """The floors of the package that a file imports from."""
    own = [name.split(".") for name in imports_of(file) if name.startswith("swinv2_backbone.")]
    return {parts[1] for parts in own} - {"__version__"}


def test_every_file_is_on_a_floor():
    assert {floor_of(file) for file in FILES} <= {*FLOORS, "__init__"}
    assert set(FLOORS) <= {floor_of(file) for file in FILES}


@pytest.mark.parametrize("file", [f for f in FILES if f != PACKAGE / "__init__.py"], ids=name_of)
def test_a_file_imports_only_from_floors_below(file):
    own = floor_of(file)
    below = set(FLOORS[: FLOORS.index(own)])
    if file.parent != PACKAGE:  # within a folder, its files may import each other
        below.add(own)
    assert floors_imported(file) <= below


@pytest.mark.parametrize(
    "file", [f for f in FILES if floor_of(f) not in ("d2", "cli")], ids=name_of
)
def test_the_core_imports_torch_and_the_standard_library_alone(file):
    allowed = CORE_NEEDS | OPTIONAL.get(floor_of(file), set())
    assert {name.split(".")[0] for name in imports_of(file)} <= allowed
    names = set(imports_of(file))
    if file == PACKAGE / "__init__.py":  # the one exception: ``load``, resolved on first use
        names.remove("swinv2_backbone.d2.inference.model.load")
    assert not [name for name in names if name.startswith("swinv2_backbone.d2")]


def test_only_the_plugin_imports_detectron2():
    users = {
        floor_of(file)
        for file in FILES
        if PLUGIN_ONLY & {name.split(".")[0] for name in imports_of(file)}
    }
    assert users <= {"d2", "cli"}


def test_classification_needs_no_plugin():
    for name in ("classify", "classification"):
        assert "d2" not in floors_imported(PACKAGE / "cli" / f"{name}.py")


ALONE = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        absent = {"detectron2", "fvcore", "torchvision", "timm", "numpy", "safetensors", "tqdm",
                  "triton"}
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
import torch
from swinv2_backbone import build_backbone
with torch.no_grad():
    features = build_backbone("swinv2_tiny_window8_256").eval()(torch.zeros(1, 3, 33, 40))
print([tuple(feature.shape) for feature in features.values()])
"""


def test_the_core_works_with_torch_alone():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ALONE],
        text=True,
        capture_output=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == str(
        [(1, 96, 9, 10), (1, 192, 5, 5), (1, 384, 3, 3), (1, 768, 2, 2)]
    )


def test_importing_the_package_imports_no_torch_and_every_name_comes_on_first_use():
    code = "import sys, swinv2_backbone as s; assert 'torch' not in sys.modules; print(s.SwinV2)"
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        text=True,
        capture_output=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )
    assert result.stdout.strip() == "<class 'swinv2_backbone.backbone.SwinV2'>", result.stderr
