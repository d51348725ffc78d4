"""The scene written as annotation tools write it, without these tools.

Each function writes a folder and returns the path to give as annotations, and the folder of images.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image

from exporters.scene import CLASSES, HEIGHT, IMAGES, THINGS, WIDTH, Thing, of_image, write_images

Paths = tuple[Path, Path]
SIZE = {"height": HEIGHT, "width": WIDTH}


def runs(values: np.ndarray) -> list[int]:
    """Return run lengths of 0 and 1, starting with 0."""
    flat = np.concatenate([[False], values.ravel().astype(bool)])
    places = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], places, [values.size]])).tolist()


def rle(thing: Thing) -> dict[str, Any]:
    """Return COCO's uncompressed RLE, along the columns."""
    return {"size": [HEIGHT, WIDTH], "counts": runs(thing.mask.T)}


def coco(folder: Path, crowd: int = 0, polygons: bool = False) -> Paths:
    """COCO with masks as RLE, which supervision and CVAT mark as crowds, or with polygons.

    A hole is one more polygon, as several tools write it.
    """
    annotations = [
        {
            "id": number,
            "image_id": IMAGES.index(thing.image) + 1,
            "category_id": CLASSES.index(thing.name) + 1,
            "bbox": list(thing.box),
            "area": int(thing.mask.sum()),
            "iscrowd": crowd,
            "segmentation": [list(one) for one in (*thing.parts, *thing.holes)]
            if polygons
            else rle(thing),
        }
        for number, thing in enumerate(THINGS, 1)
    ]
    content = {
        "images": [{"id": i, "file_name": name} | SIZE for i, name in enumerate(IMAGES, 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)],
    }
    images = write_images(folder / "images")
    return _json(folder / "annotations.json", content), images


def roboflow(folder: Path) -> Paths:
    """Roboflow's COCO: a root class, and files renamed with a digest, beside the annotations."""
    path, images = coco(folder / "all")
    content = json.loads(path.read_text(encoding="utf-8"))
    for category in content["categories"]:
        category["supercategory"] = "fruit"
    root = {"id": 0, "name": "fruit", "supercategory": "none"}
    content["categories"].insert(0, root)
    target = folder / "train"
    target.mkdir()
    for image in content["images"]:
        stem = Path(image["file_name"]).stem
        (images / image["file_name"]).rename(target / f"{stem}_png.rf.{stem:0>32}.png")
        image["file_name"] = f"{stem}_png.rf.{stem:0>32}.png"
    path.unlink()
    _json(target / "_annotations.coco.json", content)
    return folder, target


def yolo(folder: Path, polygons: bool = True) -> Paths:
    """YOLO: polygons (of objects in one part without holes), or boxes."""
    images = write_images(folder / "images" / "train")
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    for name in IMAGES:
        lines = []
        for thing in of_image(name):
            x, y, w, h = thing.box
            values = [(x + w / 2) / WIDTH, (y + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT]
            if polygons:
                sides = (WIDTH, HEIGHT)
                values = [value / sides[i % 2] for i, value in enumerate(thing.parts[0])]
            number = CLASSES.index(thing.name)
            lines.append(" ".join([str(number), *(f"{value:.8f}" for value in values)]))
        if lines:  # an image without objects has no file
            (labels / f"{Path(name).stem}.txt").write_text(
                "\n".join(lines) + "\n", encoding="utf-8"
            )
    names = ", ".join(CLASSES)
    # Roboflow's paths start from another folder than that of the file.
    text = f"train: ../images/train\nval: images/train\nnc: {len(CLASSES)}\nnames: [{names}]\n"
    (folder / "data.yaml").write_text(text, encoding="utf-8")
    return folder / "data.yaml", images


def voc(folder: Path, first: int = 1) -> Paths:
    """VOC XML with pixels counted from 1, or corners from 0."""
    images = write_images(folder / "JPEGImages")
    (folder / "Annotations").mkdir()
    for name in IMAGES:
        objects = ""
        for thing in of_image(name):
            x, y, w, h = thing.box
            corners = zip(("xmin", "ymin", "xmax", "ymax"), (x + first, y + first, x + w, y + h))
            inner = "".join(f"<{key}>{value}</{key}>" for key, value in corners)
            objects += (
                f"<object><name>{thing.name}</name><pose>Unspecified</pose>"
                "<truncated>0</truncated><difficult>0</difficult>"
                f"<bndbox>{inner}</bndbox></object>"
            )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height><depth>3</depth></size>"
        start = f"<annotation><folder>VOC</folder><filename>{name}</filename>{size}"
        text = f"{start}<segmented>0</segmented>{objects}</annotation>"
        (folder / "Annotations" / f"{Path(name).stem}.xml").write_text(text, encoding="utf-8")
    return folder, images


def voc_palette() -> list[int]:
    """Return the palette of the VOC challenges: 256 times R, G, B."""
    palette = []
    for index in range(256):
        for channel in range(3):
            bits = [index >> channel + 3 * place & 1 for place in range(8)]
            palette.append(sum(bit << 7 - place for place, bit in enumerate(bits)))
    return palette


def voc_masks(folder: Path, colors: bool = False) -> Paths:
    """VOC's pictures of objects and classes, as palette or as RGB pictures; one image has none."""
    images = write_images(folder / "JPEGImages")
    names = ("background", *CLASSES)
    palette = voc_palette()
    lines = [
        f"{name}:{','.join(map(str, palette[3 * i : 3 * i + 3]))}::" for i, name in enumerate(names)
    ]
    (folder / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\n" + "\n".join(lines), encoding="utf-8"
    )
    for kind in ("SegmentationObject", "SegmentationClass"):
        (folder / kind).mkdir()
        for name in IMAGES[:2]:
            values = np.zeros((HEIGHT, WIDTH), np.uint8)
            for number, thing in enumerate(of_image(name), 1):
                value = number if kind == "SegmentationObject" else names.index(thing.name)
                values[thing.mask] = value
            picture = Image.fromarray(values)
            picture.putpalette(palette)
            picture = picture.convert("RGB") if colors else picture
            picture.save(folder / kind / f"{Path(name).stem}.png")
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    listed = "\n".join(Path(name).stem for name in IMAGES)
    (folder / "ImageSets" / "Segmentation" / "train.txt").write_text(
        listed + "\n", encoding="utf-8"
    )
    return folder, images


def labelme(folder: Path) -> Paths:
    """LabelMe: polygons, parts joined by group_id, a mask for the object with a hole."""
    images = write_images(folder)
    for name in IMAGES:
        shapes = [
            shape | {"group_id": number if len(thing.parts) > 1 else None}
            for number, thing in enumerate(of_image(name))
            for shape in _labelme_shapes(thing)
        ]
        content: dict[str, Any] = {"version": "5.4.1", "flags": {}, "shapes": shapes}
        content["imagePath"] = name
        content |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
        _json(folder / f"{Path(name).stem}.json", content)
    return folder, images


def _labelme_shapes(thing: Thing) -> list[dict[str, Any]]:
    if thing.holes:
        x, y, w, h = thing.box
        return [
            {
                "label": thing.name,
                "shape_type": "mask",
                "points": [[x, y], [x + w - 1, y + h - 1]],
                "mask": _base64_png(thing.mask[y : y + h, x : x + w]),
            }
        ]
    return [
        {"label": thing.name, "shape_type": "polygon", "points": _pairs(part)}
        for part in thing.parts
    ]


def cvat(folder: Path) -> Paths:
    """CVAT for images 1.1: polygons, parts joined by group_id, a mask for the one with a hole."""
    images = write_images(folder / "images")
    labels = "".join(f"<label><name>{name}</name></label>" for name in CLASSES)
    text = f"<meta><task><labels>{labels}</labels></task></meta>"
    for number, name in enumerate(IMAGES):
        shapes = ""
        for group, thing in enumerate(of_image(name), 1):
            shapes += _cvat_shapes(thing, group if len(thing.parts) > 1 else 0)
        text += f'<image id="{number}" name="{name}" width="{WIDTH}" height="{HEIGHT}">'
        text += f"{shapes}</image>"
    path = folder / "annotations.xml"
    path.write_text(f"<annotations><version>1.1</version>{text}</annotations>", encoding="utf-8")
    return path, images


def _cvat_shapes(thing: Thing, group: int) -> str:
    common = f'label={quoteattr(thing.name)} occluded="0" z_order="0" group_id="{group}"'
    if thing.holes:
        x, y, w, h = thing.box
        counts = ", ".join(map(str, runs(thing.mask[y : y + h, x : x + w])))
        place = f'left="{x}" top="{y}" width="{w}" height="{h}"'
        return f'<mask {common} rle="{counts}" {place}></mask>'
    points = (";".join(f"{x:.2f},{y:.2f}" for x, y in _pairs(part)) for part in thing.parts)
    return "".join(f'<polygon {common} points="{some}"></polygon>' for some in points)


def label_studio(folder: Path, brush: bool = True) -> Paths:
    """Label Studio's JSON: brushes, or polygons (of the first parts) and a rotated rectangle."""
    images = write_images(folder / "images")
    tasks = []
    for number, name in enumerate(IMAGES, 1):
        result = []
        for place, thing in enumerate(of_image(name)):
            value: dict[str, Any] = {"format": "rle", "rle": brush_code(thing.mask)}
            kind = "brushlabels"
            if not brush:
                kind = "polygonlabels"
                points = [[100 * x / WIDTH, 100 * y / HEIGHT] for x, y in _pairs(thing.parts[0])]
                value = {"points": points, "closed": True}
            result.append(
                {
                    "id": f"r{number}{place}",
                    "type": kind,
                    "from_name": "tag",
                    "to_name": "image",
                    "original_width": WIDTH,
                    "original_height": HEIGHT,
                    "image_rotation": 0,
                    "value": value | {kind: [thing.name]},
                }
            )
        data = {"image": f"/data/upload/1/0123abcd-{name}"}
        annotation = {"id": number, "was_cancelled": False, "result": result}
        tasks.append({"id": number, "data": data, "annotations": [annotation], "predictions": []})
    return _json(folder / "project.json", tasks), images


def brush_code(mask: np.ndarray) -> list[int]:
    """Return Label Studio's code of a mask: single values and repeated ones by turns."""
    values = np.repeat(np.where(mask.ravel(), 255, 0).astype(np.uint8), 4)
    bits = f"{values.size:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    changes = np.flatnonzero(np.diff(values)) + 1
    starts = np.concatenate([[0], changes, [values.size]])
    for start, end in zip(starts[:-1], starts[1:]):
        for place in range(start, end, 65536):
            length = min(end - place, 65536)
            repeated = length > 4
            bits += f"{int(repeated)}" + f"{3:02b}" + f"{length - 1:016b}"
            one = f"{values[place]:08b}"
            bits += one if repeated else one * length
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


def instances(folder: Path, by_class: bool = False) -> Paths:
    """Pictures of object numbers; of several classes, 1000 times the class is added."""
    images, target = write_images(folder / "images"), folder / "masks"
    target.mkdir()
    for name in IMAGES:
        values = np.zeros((HEIGHT, WIDTH), np.uint16)
        for number, thing in enumerate(of_image(name), 1):
            first = 1000 * (CLASSES.index(thing.name) + 1) if by_class else 0
            values[thing.mask] = first + number
        Image.fromarray(values).save(target / name)
    if by_class:
        (target / "classes.txt").write_text(
            "\n".join(("background", *CLASSES)) + "\n", encoding="utf-8"
        )
    return target, images


def panoptic(folder: Path) -> Paths:
    """COCO panoptic, with a segment of stuff around the objects."""
    images, target = write_images(folder / "images"), folder / "panoptic"
    target.mkdir()
    annotations = []
    for number, name in enumerate(IMAGES, 1):
        segments = [(3, np.ones((HEIGHT, WIDTH), bool))]
        segments += [(CLASSES.index(thing.name) + 1, thing.mask) for thing in of_image(name)]
        values = np.zeros((HEIGHT, WIDTH), np.int64)
        infos = []
        for place, (category, mask) in enumerate(segments):
            values[mask] = 300 + place
            infos.append({"id": 300 + place, "category_id": category, "iscrowd": 0})
        pixels = np.stack([values >> 8 * channel & 255 for channel in range(3)], -1)
        Image.fromarray(pixels.astype(np.uint8)).save(target / name)
        annotations.append({"image_id": number, "file_name": name, "segments_info": infos})
    categories = [{"id": i, "name": name, "isthing": 1} for i, name in enumerate(CLASSES, 1)]
    content = {
        "images": [{"id": i, "file_name": name} | SIZE for i, name in enumerate(IMAGES, 1)],
        "annotations": annotations,
        "categories": [*categories, {"id": 3, "name": "sand", "isthing": 0}],
    }
    return _json(folder / "panoptic.json", content), images


def _pairs(polygon: Iterable[int]) -> list[list[int]]:
    return np.reshape(list(polygon), (-1, 2)).tolist()


def _base64_png(mask: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _json(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
