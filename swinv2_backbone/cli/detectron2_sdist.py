"""The sdist of Detectron2 0.6 on PyPI, brought up to date by a table of replacements."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from swinv2_backbone.cli import pip

SDIST = "pb1-detectron2-0.6"  # its package files are byte-identical to the official tag v0.6
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
OLDER_PIP = "pip==25.3"
VERSION = "0.6+swinv2.purepython"  # the local label distinguishes it from an official 0.6


class Replacement(NamedTuple):
    """One change of a source file: ``old``, which must occur ``times``, becomes ``new``."""

    file: str
    old: str
    new: str
    times: int
    reason: str


PANOPTICAPI = "https://github.com/cocodataset/panopticapi/archive/master.zip"
NUMPY = "alias of a Python type, removed in numpy 1.24"
PILLOW = "old name, removed in Pillow 10"
SETUPTOOLS = "pkg_resources is not in setuptools >= 81"
COMPILED = "no compiled part, as the sdist lacks the C++ sources"
CAFFE2 = "needed only for the export to Caffe2, which no longer exists"
MAIN = "as on the main branch"
URL = "an extra that is a URL, which pip does not allow from PyPI"
REPLACEMENTS = [
    Replacement("detectron2/data/build.py", "dtype=np.int", "dtype=int", 2, NUMPY),
    Replacement("detectron2/data/datasets/pascal_voc.py", "np.str)", "str)", 1, NUMPY),
    Replacement("detectron2/evaluation/pascal_voc_evaluation.py", "np.bool)", "bool)", 2, NUMPY),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.int)", "int)", 2, NUMPY),
    Replacement("detectron2/evaluation/sem_seg_evaluation.py", "np.float)", "float)", 5, NUMPY),
    Replacement("detectron2/structures/masks.py", "np.bool)", "bool)", 3, NUMPY),
    Replacement("detectron2/utils/video_visualizer.py", "np.bool)", "bool)", 1, NUMPY),
    Replacement("detectron2/utils/visualizer.py", "np.bool)", "bool)", 3, NUMPY),
    Replacement("detectron2/data/transforms/transform.py", ".LINEAR", ".BILINEAR", 1, PILLOW),
    Replacement("detectron2/model_zoo/model_zoo.py", "import pkg_resources\n", "", 1, SETUPTOOLS),
    Replacement(
        "detectron2/model_zoo/model_zoo.py",
        'pkg_resources.resource_filename(\n        "detectron2.model_zoo"',
        "os.path.join(\n        os.path.dirname(__file__)",
        1,
        SETUPTOOLS,
    ),
    Replacement(
        "detectron2/evaluation/coco_evaluation.py",
        "from detectron2.evaluation.fast_eval_api import COCOeval_opt",
        "from pycocotools.cocoeval import COCOeval as COCOeval_opt",
        1,
        COMPILED,
    ),
    Replacement("setup.py", "    ext_modules=get_extensions(),\n", "", 1, COMPILED),
    Replacement("setup.py", '"future",', "", 1, CAFFE2),
    Replacement("setup.py", '"pydot",', "", 1, CAFFE2),
    Replacement("setup.py", '"black==21.4b2"', '"black"', 1, MAIN),
    Replacement("setup.py", '"omegaconf>=2.1"', '"omegaconf>=2.1,<2.4"', 1, MAIN),
    Replacement("setup.py", '"pb1-detectron2"', '"detectron2"', 1, MAIN),
    Replacement("setup.py", f'"panopticapi @ {PANOPTICAPI}",', "", 1, URL),
    Replacement("detectron2/__init__.py", '"0.6"', f'"{VERSION}"', 1, "not an official 0.6"),
]
STAND_IN = '''"""Stand-in for Detectron2's compiled part, which this pure-Python build lacks."""

has_cuda = lambda: False
get_compiler_version = get_cuda_version = lambda: "none (pure-Python build)"


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(
        f"detectron2._C.{name} is compiled code, which this pure-Python build of Detectron2 lacks "
        "(deformable convolutions, rotated boxes, fast COCO evaluation). Install the official one: "
        "https://github.com/facebookresearch/detectron2"
    )
'''


def download_sdist(file: Path) -> None:
    """Download the sdist with pip, which checks the hash before it runs any of its code.

    pip 26.3 and later refuse it, because one of its extras is a URL (an extra that REPLACEMENTS
    drops); in that case, an older pip, installed into a separate folder, downloads it.
    """
    print(f"Fetching {SDIST} from the package index", flush=True)
    requirement = file.parent / "requirement.txt"
    requirement.write_text(f"pb1-detectron2==0.6 --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command: list[str | Path] = [
        *("download", "--no-deps", "--no-binary=:all:", "--no-build-isolation"),
        *("--require-hashes", "-r", requirement, "-d", file.parent),
    ]
    remedy = "Is the package index reachable (pip's index-url, proxy, find-links)?"
    try:
        pip.run_pip(*command, remedy=remedy)
    except pip.InstallError:
        older = file.parent / "older_pip"
        pip.run_pip("install", "--target", older, OLDER_PIP, remedy=remedy)
        pip.run_pip(*command, remedy=remedy, python_path=older)


def modernize(root: Path) -> None:
    """Bring the unpacked sdist up to date, so that it builds as a pure-Python wheel."""
    for row in REPLACEMENTS:
        replace(root, row)
    (root / "detectron2" / "_C.py").write_text(STAND_IN, encoding="utf-8")


def replace(root: Path, row: Replacement) -> None:
    """Apply one row of the table; a row that does not match exactly is an error."""
    file = root / row.file
    text = file.read_text(encoding="utf-8")
    if text.count(row.old) != row.times:
        raise pip.InstallError(
            f"{row.file}: {row.old!r} occurs {text.count(row.old)} times, expected {row.times} "
            f"({row.reason}): the table REPLACEMENTS does not match this source."
        )
    file.write_text(text.replace(row.old, row.new), encoding="utf-8")
