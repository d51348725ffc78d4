#!/usr/bin/env python
"""Run the exporters of other projects and read what they write; update docs/EXPORTERS.md.

tools/exporters/run.py WORK_FOLDER [NAME ...]

installs the exporters at pinned versions in virtual environments of their own in WORK_FOLDER (2.3
GB), writes a scene of known masks through each, reads it and compares it to the pixel (7 minutes in
all). The results go to tools/exporters/results.json, and as a table into docs/EXPORTERS.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from exporters import forms  # noqa: E402
from exporters.compare import compare  # noqa: E402
from exporters.table import RESULTS, write_table  # noqa: E402
from swinv2_backbone.checkpoints.durable import write_text  # noqa: E402
from swinv2_backbone.d2.data.formats import Source, convert  # noqa: E402
from swinv2_backbone.d2.data.validation.coco import check_coco  # noqa: E402

READERS = "readers"  # the name of the comparison of libraries that read
# Packages that can be installed together: exporters, then what draws and reads masks for them.
ENVIRONMENTS = {
    "tools": (
        "supervision==0.31.2",
        "datumaro==1.13.12",
        "labelformat==0.1.17",
        "globox==2.9.0",
        "kwcoco==0.9.1",
        "labelme2coco==0.2.6",
        "label-studio-sdk==2.1.2",
        "imantics==0.1.12",
        "sahi==0.12.8",
        "numpy==2.2.6",
        "opencv-python==5.0.0.93",
        "opencv-python-headless==4.12.0.88",
        "pillow==12.3.0",
        "pycocotools==2.0.11",
        "shapely==2.2.0",
    ),
    "fiftyone": (
        "fiftyone==1.22.1",
        "numpy==2.4.6",
        "opencv-python-headless==4.14.0.94",
        "pillow==13.0.0",
    ),
}
# Name of a function in export.py -> (package, what it writes).
EXPORTERS = {
    "supervision_coco": ("supervision", "COCO"),
    "supervision_yolo": ("supervision", "YOLO"),
    "supervision_voc": ("supervision", "VOC XML"),
    "datumaro_coco": ("datumaro", "COCO"),
    "datumaro_yolo": ("datumaro", "YOLO (boxes)"),
    "datumaro_voc": ("datumaro", "VOC XML"),
    "datumaro_voc_masks": ("datumaro", "VOC masks"),
    "datumaro_cvat": ("datumaro", "CVAT XML"),
    "labelformat_coco": ("labelformat", "COCO from YOLO"),
    "labelformat_yolo": ("labelformat", "YOLO"),
    "labelformat_yolo_boxes": ("labelformat", "YOLO (boxes)"),
    "labelformat_voc": ("labelformat", "VOC XML"),
    "labelformat_cvat": ("labelformat", "CVAT XML"),
    "globox_coco": ("globox", "COCO"),
    "globox_voc": ("globox", "VOC XML"),
    "globox_yolo": ("globox", "YOLO (boxes)"),
    "globox_labelme": ("globox", "LabelMe"),
    "kwcoco_coco": ("kwcoco", "kwcoco"),
    "kwcoco_legacy": ("kwcoco", "COCO (`conform --legacy`)"),
    "labelme2coco_coco": ("labelme2coco", "COCO"),
    "label_studio_coco": ("label-studio-sdk", "COCO from polygons"),
    "label_studio_brush": ("label-studio-sdk", "COCO from brushes"),
    "imantics_coco": ("imantics", "COCO"),
    "sahi_slices": ("sahi", "COCO slices"),
    "fiftyone_coco": ("fiftyone", "COCO"),
    "fiftyone_yolo": ("fiftyone", "YOLO (boxes)"),
    "fiftyone_voc": ("fiftyone", "VOC XML"),
    "fiftyone_cvat": ("fiftyone", "CVAT XML"),
}
# Exports whose form holds one polygon per object.
SIMPLE = ("labelformat_coco", "label_studio_coco", "sahi_slices", "yolo")
# Forms that tools write on their servers only; ours follow their source.
OWN: dict[str, tuple[str, str, Callable[[Path], tuple[Path, Path]]]] = {
    "coco_crowds": ("CVAT", "COCO (masks)", lambda folder: forms.coco(folder, crowd=1)),
    "cvat": ("CVAT", "CVAT XML", forms.cvat),
    "roboflow": ("Roboflow", "COCO", forms.roboflow),
    "labelme": ("LabelMe", "LabelMe", forms.labelme),
    "label_studio": ("Label Studio", "JSON", forms.label_studio),
    "voc_masks": ("VOC", "masks", forms.voc_masks),
    "panoptic": ("COCO", "panoptic", forms.panoptic),
    "instances": ("any", "object numbers", lambda folder: forms.instances(folder, by_class=True)),
}


def main() -> None:
    args = parser().parse_args()
    folder = args.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    order = [*EXPORTERS, *OWN, READERS]
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in args.names or order:
        if name == READERS:
            results[name] = libraries(folder)
        else:
            results[name] = own(folder, name) if name in OWN else exported(folder, name)
        print(name, results[name])
    results = {name: results[name] for name in order if name in results}
    write_text(RESULTS, json.dumps(results, indent=1) + "\n")
    write_table(results)


def own(folder: Path, name: str) -> dict[str, Any]:
    """Write and read a form of our own."""
    tool, form, write = OWN[name]
    return {"tool": tool, "writes": form} | read(*write(emptied(folder / name)))


def emptied(folder: Path) -> Path:
    """Return a folder, which is made anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def libraries(folder: Path) -> dict[str, Any]:
    """Compare what the libraries, and this package, read of the same forms."""
    python = environment(folder / "tools-venv", ENVIRONMENTS["tools"])
    script = Path(__file__).with_name("export.py")
    subprocess.run([str(python), str(script), str(folder), "--read"], check=True)
    results: dict[str, Any] = {}
    for name, content in json.loads((folder / "read.json").read_text(encoding="utf-8")).items():
        failed = {"error": str(content.get("error")).split(":")[0]}
        simple = name.split()[0] in SIMPLE
        results[name] = failed if "error" in content else asdict(compare(content, simple))
    for form in list(dict.fromkeys(name.split()[0] for name in results)):
        path, images = getattr(forms, form)(emptied(folder / "ours" / form))
        results[f"{form} ours"] = read(path, images, form in SIMPLE)
    return dict(sorted(results.items()))


def exported(folder: Path, name: str) -> dict[str, Any]:
    """Run one exporter, and read what it wrote."""
    package, form = EXPORTERS[name]
    kind = "fiftyone" if package == "fiftyone" else "tools"
    python = environment(folder / f"{kind}-venv", ENVIRONMENTS[kind])
    version = next(
        one.split("==")[1] for one in ENVIRONMENTS[kind] if one.startswith(f"{package}==")
    )
    script = Path(__file__).with_name("export.py")
    subprocess.run([str(python), str(script), str(folder), name], check=True)
    result = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    about = {"tool": f"{package} {version}", "writes": form}
    if "error" in result:
        return about | {"exporter_error": result["error"].splitlines()[0][:200]}
    return about | read(Path(result["path"]), Path(result["images"]), name in SIMPLE)


def environment(folder: Path, wanted: tuple[str, ...]) -> Path:
    """Return the Python of an environment, which is made if it lacks the wanted packages."""
    python, installed = folder / "bin" / "python", folder / "installed"
    packages = "\n".join(wanted)
    if not installed.exists() or installed.read_text(encoding="utf-8") != packages:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *wanted], check=True)
        installed.write_text(packages, encoding="utf-8")
    return python


def read(path: Path, images: Path, simple: bool = False) -> dict[str, Any]:
    """Read annotations as a training does, without any setting."""
    try:
        converted = convert(Source(path, images, "train"))
    except (OSError, ValueError) as error:
        return {"refused": _first_line(error)}
    content, report = check_coco(
        converted.content,
        "",
        str(converted.images),
        masks=any(one.get("segmentation") for one in converted.content["annotations"]),
        mask_format="bitmask",
        for_evaluation=False,
    )
    result: dict[str, Any] = {"format": converted.format}
    for key in ("errors", "repaired", "notes"):
        found = getattr(report, key, {})
        result[key] = [_tally(fault.name, finding.count) for fault, finding in found.items()]
    result["left_out"] = [_tally(what, one.count) for what, one in converted.left_out.items()]
    return result if report.errors else result | asdict(compare(content, simple))


def _tally(name: str, count: int) -> str:
    return f"{name} ({count})" if count > 1 else name


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0][:200]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument("folder", type=Path, metavar="WORK_FOLDER")
    found.add_argument("names", nargs="*", metavar="NAME", help="default: all")
    return found


if __name__ == "__main__":
    main()
