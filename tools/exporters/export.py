"""Write the scene through exporters; run by their own Python, in which they are installed.

python export.py FOLDER NAME...

writes FOLDER/NAME/... for each name of ``EXPORTS``, and FOLDER/NAME.json with the paths of the
annotations and images, or the error.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from exporters import forms  # noqa: E402
from exporters.scene import CLASSES, HEIGHT, IMAGES, THINGS, WIDTH, of_image, write_images  # noqa: E402

Paths = tuple[Path, Path]


def _supervision(folder: Path) -> Any:
    import supervision as sv

    images = write_images(folder / "images")
    annotations = {}
    for name in IMAGES:
        things = of_image(name)
        found = sv.Detections.empty()
        if things:
            corners = [(x, y, x + w, y + h) for x, y, w, h in (thing.box for thing in things)]
            found = sv.Detections(
                xyxy=np.array(corners, float),
                mask=np.stack([thing.mask for thing in things]),
                class_id=np.array([CLASSES.index(thing.name) for thing in things]),
            )
        annotations[str(images / name)] = found
    return sv.DetectionDataset(list(CLASSES), list(annotations), annotations)


def supervision_coco(folder: Path) -> Paths:
    _supervision(folder).as_coco(annotations_path=str(folder / "annotations.json"))
    return folder / "annotations.json", folder / "images"


def supervision_yolo(folder: Path) -> Paths:
    target = folder / "yolo"
    _supervision(folder).as_yolo(
        str(target / "images"), str(target / "labels"), str(target / "data.yaml")
    )
    return target, target / "images"


def supervision_voc(folder: Path) -> Paths:
    _supervision(folder).as_pascal_voc(annotations_directory_path=str(folder / "Annotations"))
    return folder / "Annotations", folder / "images"


def _datumaro(folder: Path, format: str, second: bool = False) -> Path:
    import datumaro as dm

    images, items = write_images(folder / "images"), []
    for name in IMAGES:
        shapes: list[Any] = []
        for number, thing in enumerate(of_image(name), 1):
            label = CLASSES.index(thing.name)
            if format in ("coco_instances", "voc_instance_segmentation"):
                shapes.append(
                    dm.Mask(thing.mask, label=label, id=number, group=number,
                            attributes={"is_crowd": False})
                )  # fmt: skip
            elif format == "cvat" and not thing.holes:
                shapes += [
                    dm.Polygon(list(part), label=label, group=number) for part in thing.parts
                ]
            elif format == "cvat":
                shapes.append(dm.Mask(thing.mask, label=label, group=number))
            else:
                shapes.append(dm.Bbox(*thing.box, label=label, id=number, group=number))
        image = dm.Image.from_file(str(images / name))
        items.append(
            dm.DatasetItem(Path(name).stem, subset="train", annotations=shapes, media=image)
        )
    if second:  # an exporter that wants a validation set
        items.append(items[-1].wrap(subset="val"))
    dataset = dm.Dataset.from_iterable(items, categories=list(CLASSES), media_type=dm.Image)
    target = folder / "out"
    dataset.export(str(target), format, save_media=True)
    return target


def datumaro_coco(folder: Path) -> Paths:
    target = _datumaro(folder, "coco_instances")
    return target / "annotations" / "instances_train.json", target / "images" / "train"


def datumaro_yolo(folder: Path) -> Paths:
    target = _datumaro(folder, "yolo_ultralytics", second=True)
    return target, target / "images" / "train"


def datumaro_voc(folder: Path) -> Paths:
    target = _datumaro(folder, "voc_detection")
    return target, target / "JPEGImages"


def datumaro_voc_masks(folder: Path) -> Paths:
    target = _datumaro(folder, "voc_instance_segmentation")
    return target, target / "JPEGImages"


def datumaro_cvat(folder: Path) -> Paths:
    target = _datumaro(folder, "cvat")
    return next(target.glob("*.xml")), target / "images"


def _labelformat(folder: Path, format: str, task: str, source: str = "coco") -> Path:
    path, _ = forms.coco(folder, polygons=True)  # it cannot read RLE
    target = folder / "out"
    target.mkdir()
    where = {"yolov8": ["--output-file", str(target / "data.yaml")]}
    command = [str(Path(sys.executable).with_name("labelformat")), "convert", "--task", task]
    command += ["--input-format", source, "--input-file", str(path), "--output-format", format]
    command += where.get(format, ["--output-folder", str(target)])
    command += ["--output-split", "train"] if format == "yolov8" else []
    subprocess.run(command, check=True, capture_output=True)
    return target


def labelformat_yolo(folder: Path) -> Paths:
    return _labelformat(folder, "yolov8", "instance-segmentation"), folder / "images"


def labelformat_yolo_boxes(folder: Path) -> Paths:
    return _labelformat(folder, "yolov8", "object-detection"), folder / "images"


def labelformat_voc(folder: Path) -> Paths:
    return _labelformat(folder, "pascalvoc", "object-detection"), folder / "images"


def labelformat_cvat(folder: Path) -> Paths:
    target = _labelformat(folder, "cvat", "object-detection")
    return next(target.glob("*.xml")), folder / "images"


def labelformat_coco(folder: Path) -> Paths:
    path, images = forms.yolo(folder)
    (folder / "labels" / "train" / "empty.txt").touch()  # it cannot read an image without a file
    command = [str(Path(sys.executable).with_name("labelformat")), "convert", "--task"]
    command += ["instance-segmentation", "--input-format", "yolov8", "--input-file", str(path)]
    command += ["--input-split", "val", "--output-format", "coco"]
    command += ["--output-file", str(folder / "out.json")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "out.json", images


def _globox(folder: Path) -> Any:
    from globox import AnnotationSet

    path, images = forms.coco(folder)
    return AnnotationSet.from_coco(path, verbose=False), images


def globox_coco(folder: Path) -> Paths:
    found, images = _globox(folder)
    found.save_coco(folder / "out.json", auto_ids=True, verbose=False)
    return folder / "out.json", images


def globox_voc(folder: Path) -> Paths:
    found, images = _globox(folder)
    found.save_pascal_voc(folder / "xml", verbose=False)
    return folder / "xml", images


def globox_yolo(folder: Path) -> Paths:
    found, images = _globox(folder)
    numbers = {name: number for number, name in enumerate(CLASSES)}
    found.save_yolo_v5(folder / "labels", label_to_id=numbers, verbose=False)
    (folder / "labels" / "classes.txt").write_text("\n".join(CLASSES), encoding="utf-8")
    return folder / "labels", images


def globox_labelme(folder: Path) -> Paths:
    found, images = _globox(folder)
    found.save_labelme(folder / "labelme", verbose=False)
    return folder / "labelme", images


def kwcoco_coco(folder: Path, *options: str) -> Paths:
    import kwcoco
    import kwimage

    images = write_images(folder / "images")
    dataset = kwcoco.CocoDataset()
    numbers = {name: dataset.add_category(name) for name in CLASSES}
    for name in IMAGES:
        gid = dataset.add_image(file_name=name, width=WIDTH, height=HEIGHT)
        for thing in of_image(name):
            polygons = kwimage.Mask.from_mask(thing.mask.astype(np.uint8)).to_multi_polygon()
            dataset.add_annotation(
                gid, numbers[thing.name], list(thing.box), polygons.to_coco("new")
            )
    dataset.dump(str(folder / "annotations.json"))
    return folder / "annotations.json", images


def kwcoco_legacy(folder: Path) -> Paths:
    path, images = kwcoco_coco(folder)
    command = [str(Path(sys.executable).with_name("kwcoco")), "conform", str(path)]
    subprocess.run([*command, str(folder / "out.json"), "--legacy=True"], check=True)
    return folder / "out.json", images


def labelme2coco_coco(folder: Path) -> Paths:
    import labelme2coco

    path, images = forms.labelme(folder / "labelme")
    for file in path.glob("*.json"):  # it cannot read masks
        content = json.loads(file.read_text(encoding="utf-8"))
        content["shapes"] = [one for one in content["shapes"] if one["shape_type"] == "polygon"]
        file.write_text(json.dumps(content), encoding="utf-8")
    os.chdir(folder)  # it writes paths relative to the current folder
    labelme2coco.convert("labelme", "out")
    return folder / "out" / "dataset.json", folder


def _label_studio(folder: Path, format: str, brush: bool) -> Paths:
    from label_studio_sdk.converter import Converter

    path, images = forms.label_studio(folder, brush)
    kind = "BrushLabels" if brush else "PolygonLabels"
    labels = "".join(f'<Label value="{name}"/>' for name in CLASSES)
    config = (
        f'<View><Image name="image" value="$image"/><{kind} name="tag" toName="image">'
        f"{labels}</{kind}></View>"
    )
    target = folder / "out"
    converter = Converter(config, str(folder), download_resources=False)
    if format == "brush_to_coco":
        from label_studio_sdk.converter.exports.brush_to_coco import convert_to_coco

        items = list(converter.iter_from_json_file(str(path)))
        target.mkdir()
        convert_to_coco(items, str(target))
    else:
        function = {"coco": converter.convert_to_coco, "yolo": converter.convert_to_yolo}[format]
        function(str(path), str(target), is_dir=False)
    found = target if format == "yolo" else next(target.rglob("*.json"))
    return found, images


def label_studio_coco(folder: Path) -> Paths:
    return _label_studio(folder, "coco", brush=False)


def label_studio_brush(folder: Path) -> Paths:
    return _label_studio(folder, "brush_to_coco", brush=True)


def imantics_coco(folder: Path) -> Paths:
    import imantics

    images = write_images(folder / "images")
    categories = {name: imantics.Category(name, id=i) for i, name in enumerate(CLASSES, 1)}
    dataset = imantics.Dataset("scene")
    for number, name in enumerate(IMAGES, 1):
        image = imantics.Image.from_path(str(images / name))
        image.id = number
        for thing in of_image(name):
            image.add(imantics.Mask(thing.mask), category=categories[thing.name])
        dataset.add(image)
    (folder / "out.json").write_text(json.dumps(dataset.coco()), encoding="utf-8")
    return folder / "out.json", images


def sahi_slices(folder: Path) -> Paths:
    from sahi.slicing import slice_coco

    path, images = forms.coco(folder)
    content = json.loads(path.read_text(encoding="utf-8"))
    content["annotations"] = [
        one | {"segmentation": [[float(v) for v in thing.parts[0]]]}
        for one, thing in zip(content["annotations"], THINGS)
        if len(thing.parts) == 1 and not thing.holes
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    _, written = slice_coco(
        str(path), str(images), "out", output_dir=str(folder / "out"), slice_height=HEIGHT,
        slice_width=WIDTH, verbose=False,
    )  # fmt: skip
    return Path(written), folder / "out"


def _fiftyone(folder: Path, module: str, kind: str, **options: Any) -> Path:
    """Export without FiftyOne's database."""
    import importlib

    import fiftyone.core.labels as fol

    images = write_images(folder / "images")
    exporters = importlib.import_module(f"fiftyone.utils.{module}")
    exporter = getattr(exporters, kind)(export_dir=str(folder / "out"), **options)
    with exporter:
        for name in IMAGES:
            found = []
            for thing in of_image(name):
                x, y, w, h = thing.box
                relative = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]
                mask = thing.mask[y : y + h, x : x + w]
                found.append(fol.Detection(label=thing.name, bounding_box=relative, mask=mask))
            exporter.export_sample(str(images / name), fol.Detections(detections=found))
    return folder / "out"


def fiftyone_coco(folder: Path) -> Paths:
    target = _fiftyone(folder, "coco", "COCODetectionDatasetExporter", classes=list(CLASSES))
    return target / "labels.json", target / "data"


def fiftyone_yolo(folder: Path) -> Paths:
    target = _fiftyone(folder, "yolo", "YOLOv5DatasetExporter", classes=list(CLASSES))
    return target, target / "images" / "val"


def fiftyone_voc(folder: Path) -> Paths:
    target = _fiftyone(folder, "voc", "VOCDetectionDatasetExporter")
    return target / "labels", target / "data"


def fiftyone_cvat(folder: Path) -> Paths:
    target = _fiftyone(folder, "cvat", "CVATImageDatasetExporter")
    return target / "labels.xml", target / "data"


EXPORTS: dict[str, Callable[[Path], Paths]] = {
    name: value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == __name__ and not name.startswith("_")
}


# ---- The same libraries as readers of our forms: (image, class, mask or None, box) of each object

Found = list[tuple[str, str, Any, Any]]


def _read_by_supervision(read: Callable[[Any], Any]) -> Found:
    import supervision as sv

    dataset = read(sv.DetectionDataset)
    found: Found = []
    for path, _, objects in dataset:
        for number in range(len(objects)):
            x0, y0, x1, y1 = objects.xyxy[number].tolist()
            mask = None if objects.mask is None else np.asarray(objects.mask[number])
            name = dataset.classes[int(objects.class_id[number])]
            found.append((Path(path).name, name, mask, [x0, y0, x1 - x0, y1 - y0]))
    return found


def _read_by_datumaro(path: Path, format: str) -> Found:
    import datumaro as dm

    dataset = dm.Dataset.import_from(str(path), format)
    labels = dataset.categories()[dm.AnnotationType.label]
    found: Found = []
    for item in dataset:
        for one in item.annotations:
            if one.type not in (
                dm.AnnotationType.bbox, dm.AnnotationType.polygon, dm.AnnotationType.mask
            ):  # fmt: skip
                continue
            mask = None
            if one.type == dm.AnnotationType.polygon:
                mask = polygon_mask(one.points)
            elif one.type == dm.AnnotationType.mask:
                mask = np.asarray(one.image).astype(bool)
            name = labels[one.label].name
            found.append((f"{Path(item.id).name}.png", name, mask, list(one.get_bbox())))
    return found


def _read_by_labelformat(format: str, task: str, file: Path, *more: str) -> Found:
    target = file.parent / "read.json"
    program = str(Path(sys.executable).with_name("labelformat"))
    flag = "--input-folder" if file.is_dir() else "--input-file"
    subprocess.run(
        [program, "convert", "--task", task, "--input-format", format, flag, str(file), *more]
        + ["--output-format", "coco", "--output-file", str(target)],
        check=True, capture_output=True,
    )  # fmt: skip
    content = json.loads(target.read_text(encoding="utf-8"))
    images = {one["id"]: Path(one["file_name"]).name for one in content["images"]}
    names = {one["id"]: one["name"] for one in content["categories"]}
    found: Found = []
    for one in content["annotations"]:
        parts = one.get("segmentation") or []
        mask = np.logical_or.reduce([polygon_mask(part) for part in parts]) if parts else None
        found.append((images[one["image_id"]], names[one["category_id"]], mask, one["bbox"]))
    return found


def polygon_mask(points: Any) -> np.ndarray:
    """Return the mask (H, W) of a polygon as pycocotools draws it."""
    from pycocotools import mask as coco_mask

    rles = coco_mask.frPyObjects([[float(value) for value in points]], HEIGHT, WIDTH)
    return coco_mask.decode(rles)[:, :, 0].astype(bool)


def read_all(folder: Path) -> dict[str, Found | str]:
    """Read each form by each library that claims to; an error is a text."""
    written = {
        name: getattr(forms, name)(folder / "read" / name)
        for name in ("yolo", "voc", "voc_masks", "cvat", "roboflow")
    }
    yolo, voc, cvat = (written[name][0] for name in ("yolo", "voc", "cvat"))
    lists = voc / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text(
        "".join(f"{Path(name).stem}\n" for name in IMAGES), encoding="utf-8"
    )
    labels = yolo.parent / "labels" / "train"
    roboflow = written["roboflow"][0] / "train"
    calls: dict[str, Callable[[], Found]] = {
        "yolo supervision": lambda: _read_by_supervision(
            lambda kind: kind.from_yolo(str(written["yolo"][1]), str(labels), str(yolo))
        ),
        "yolo labelformat": lambda: _read_by_labelformat(
            "yolov8", "instance-segmentation", yolo, "--input-split", "val"
        ),
        "voc supervision": lambda: _read_by_supervision(
            lambda kind: kind.from_pascal_voc(str(written["voc"][1]), str(voc / "Annotations"))
        ),
        "voc datumaro": lambda: _read_by_datumaro(voc, "voc_detection"),
        "voc labelformat": lambda: _read_by_labelformat(
            "pascalvoc", "object-detection", voc / "Annotations", "--category-names",
            ",".join(CLASSES),
        ),
        "voc_masks datumaro": lambda: _read_by_datumaro(
            written["voc_masks"][0], "voc_instance_segmentation"
        ),
        "cvat datumaro": lambda: _read_by_datumaro(cvat.parent, "cvat"),
        "cvat labelformat": lambda: _read_by_labelformat("cvat", "object-detection", cvat),
        "roboflow supervision": lambda: _read_by_supervision(
            lambda kind: kind.from_coco(
                str(roboflow), str(roboflow / "_annotations.coco.json"), force_masks=True
            )
        ),
    }  # fmt: skip
    found: dict[str, Found | str] = {}
    for name, call in calls.items():
        try:
            found[name] = call()
        except Exception as error:  # of any library
            found[name] = f"{type(error).__name__}: {error}"
    return found


def _number_of(image: str) -> int:
    """Return the place of an image, also of one that Roboflow has renamed."""
    return next(i for i, name in enumerate(IMAGES) if image.startswith(Path(name).stem))


def write_read(folder: Path) -> None:
    """Write what the libraries read as COCO-format content, or their error."""
    results: dict[str, Any] = {}
    for name, found in read_all(folder).items():
        if isinstance(found, str):
            results[name] = {"error": found.splitlines()[0]}
            continue
        entries = [
            {
                "image_id": _number_of(image),
                "category_id": label,
                "bbox": [float(value) for value in box],
            }
            | (
                {}
                if mask is None
                else {"segmentation": {"size": [HEIGHT, WIDTH], "counts": forms.runs(mask.T)}}
            )  # noqa: E501
            for image, label, mask, box in found
        ]
        results[name] = {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(IMAGES)],
            "annotations": entries,
            "categories": [{"id": name, "name": name} for name in CLASSES],
        }
    (folder / "read.json").write_text(json.dumps(results), encoding="utf-8")


@contextlib.contextmanager
def error_as_text(result: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of any exporter
        result["error"] = f"{type(error).__name__}: {error}"
        traceback.print_exc()


def main(folder: Path, names: list[str]) -> None:
    if names == ["--read"]:
        shutil.rmtree(folder / "read", ignore_errors=True)
        write_read(folder)
        return
    for name in names:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        result: dict[str, str] = {}
        with error_as_text(result):
            path, images = EXPORTS[name](folder / name)
            result |= {"path": str(path), "images": str(images)}
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
