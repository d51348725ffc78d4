"""Sound sets in COCO's format of many kinds, made by the thousand: a check must let them pass."""

from __future__ import annotations

import copy
from collections.abc import Callable
from unittest import mock

import numpy as np
from pycocotools import mask as coco_mask

from swinv2_backbone.d2.data.validation import images as image_checks
from swinv2_backbone.d2.data.validation.coco import check_coco
from swinv2_backbone.d2.data.validation.report import Report

LANDSCAPE, PORTRAIT, SQUARE = (480, 640), (640, 480), (512, 512)


def report_on(content: dict, **how) -> Report:
    """Check a set whose image files exist and have the stated sizes."""
    how = {"masks": True, "mask_format": "bitmask", "for_evaluation": False} | how
    with mock.patch.object(image_checks, "_check_files", lambda entries, *_: entries):
        before = copy.deepcopy(content)
        _, report = check_coco(content, "some.json", "", **how)
    assert content == before
    return report


class SetMaker:
    """Draws the annotations of a set.

    Args:
        seed: seed of everything random.
        sizes: heights and widths of the images, one drawn for each.
    """

    def __init__(
        self, seed: int, sizes=(LANDSCAPE, LANDSCAPE, PORTRAIT, SQUARE), classes: int = 20
    ):
        self.rng = np.random.default_rng(seed)
        self.sizes, self.classes = sizes, classes
        self.images: list[dict] = []
        self.annotations: list[dict] = []

    def image(self) -> dict:
        height, width = self.sizes[self.rng.integers(len(self.sizes))]
        number = len(self.images) + 1
        entry = {"id": number, "file_name": f"{number}.jpg", "height": height, "width": width}
        self.images.append(entry)
        return entry

    def add(self, image: dict, **values) -> dict:
        category = min(int(self.rng.geometric(0.2)), self.classes)  # few common, many rare classes
        entry = {"id": len(self.annotations) + 1, "image_id": image["id"], "iscrowd": 0}
        self.annotations.append(entry | {"category_id": category} | values)
        return self.annotations[-1]

    def corners(self, image: dict, side: tuple[float, float]) -> np.ndarray:
        """A blob with sides of the given range in pixels, cut at the border of the image."""
        low, high = np.log(side)
        w, h = np.exp(self.rng.uniform(low, high, 2))
        far = np.array([image["width"], image["height"]])
        center = self.rng.uniform(0, far)
        angles = np.sort(self.rng.uniform(0, 2 * np.pi, self.rng.integers(8, 30)))
        radius = self.rng.uniform(0.7, 1, len(angles))[:, None] / 2
        points = center + radius * [w, h] * np.stack([np.cos(angles), np.sin(angles)], 1)
        return points.clip(0, far).round(2)

    def polygon(self, image: dict, side=(8, 300), rounded=False, **values) -> dict | None:
        points = self.corners(image, side)
        drawn = points.round() if rounded else points
        (x1, y1), (x2, y2) = points.min(0), points.max(0)
        if min(*np.ptp(drawn, axis=0), x2 - x1, y2 - y1) < 0.5:
            return None
        box = [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)]
        x, y = drawn.T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        mask = {"segmentation": [drawn.ravel().tolist()], "area": float(area)}
        return self.add(image, bbox=box, **mask, **values)

    def rle(self, image: dict, side=(8, 300), blobs=1, **values) -> dict | None:
        size = image["height"], image["width"]
        parts = [self.corners(image, side).ravel().tolist() for _ in range(blobs)]
        rle = coco_mask.merge(coco_mask.frPyObjects(parts, *size))
        if not coco_mask.area(rle):
            return None
        mask = {"size": list(size), "counts": rle["counts"].decode()}
        box, area = coco_mask.toBbox(rle).tolist(), int(coco_mask.area(rle))
        return self.add(image, bbox=box, segmentation=mask, area=area, **values)

    def content(self) -> dict:
        categories = [{"id": n, "name": f"class {n}"} for n in range(1, self.classes + 1)]
        return {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }


def _coco(seed: int) -> dict:
    made = SetMaker(seed)
    for _ in range(40):
        image = made.image()
        for _ in range(made.rng.poisson(7)):
            if made.rng.random() < 0.01:
                made.rle(image, (50, 400), blobs=6, iscrowd=1)
            else:
                made.polygon(image)
    return made.content()


def _sized(side: tuple[float, float], images: int = 20, each: int = 6, **how) -> Callable:
    def build(seed: int) -> dict:
        made = SetMaker(seed, **how)
        for _ in range(images):
            image = made.image()
            for _ in range(each):
                made.polygon(image, side)
        return made.content()

    return build


def _whole_image(seed: int) -> dict:
    """Objects as large as their image: one rectangle each, or nearly."""
    made = SetMaker(seed, classes=3)
    for _ in range(12):
        image = made.image()
        h, w = image["height"], image["width"]
        edge = made.rng.integers(0, 3, 4).tolist()
        x1, y1, x2, y2 = edge[0], edge[1], w - edge[2], h - edge[3]
        corners = [x1, y1 + 5, x1 + 5, y1, x2, y1, x2, y2, x1, y2]
        area = float((x2 - x1) * (y2 - y1))
        made.add(image, bbox=[x1, y1, x2 - x1, y2 - y1], segmentation=[corners], area=area)
    return made.content()


def _rounded(seed: int) -> dict:
    made = SetMaker(seed)
    for _ in range(20):
        image = made.image()
        for _ in range(8):
            made.polygon(image, rounded=True)
    return made.content()


def _outward(seed: int) -> dict:
    """Boxes rounded outward to whole pixels."""
    content = _coco(seed)
    for one in content["annotations"]:
        x, y, w, h = one["bbox"]
        low, high = np.floor([x, y]), np.ceil([x + w, y + h])
        one["bbox"] = [*low.tolist(), *(high - low).tolist()]
    return content


def _rle(seed: int) -> dict:
    made = SetMaker(seed)
    for _ in range(20):
        image = made.image()
        for _ in range(5):
            made.rle(image, blobs=int(made.rng.integers(1, 3)))
    return made.content()


def _boxes(seed: int) -> dict:
    content = _coco(seed)
    for one in content["annotations"]:
        del one["segmentation"]
        one["iscrowd"] = 0
    return content


def _groups(seed: int) -> dict:
    """Boxes of which many are groups, as in Open Images."""
    content = _boxes(seed)
    chosen = np.random.default_rng(seed).random(len(content["annotations"])) < 0.4
    for one, group in zip(content["annotations"], chosen):
        one["iscrowd"] = int(group)
    return content


def _amodal(seed: int, masks: bool, sizes=(LANDSCAPE, (600, 640))) -> dict:
    """Boxes of whole objects, masks of their visible parts: pedestrians cut by image and others."""
    made = SetMaker(seed, sizes, classes=2)
    for _ in range(30):
        image = made.image()
        for _ in range(8):
            x, y = made.rng.uniform(-30, image["width"] - 10), made.rng.uniform(100, 420)
            w = made.rng.uniform(15, 90)
            box = [float(x), float(y), float(w), float(2.5 * w)]
            left, top = max(x, 0), max(y, 0)
            right, bottom = min(x + w, image["width"]), min(y + 2.5 * w, image["height"])
            seen = made.rng.uniform(0.25, 1, 2)
            right, bottom = left + (right - left) * seen[0], top + (bottom - top) * seen[1]
            if right - left < 2 or bottom - top < 2:
                continue
            corners = [left, top, right, top + 1, right, bottom, (left + right) / 2, bottom]
            part = {"segmentation": [[float(number) for number in corners]]} if masks else {}
            made.add(image, bbox=box, **part)
    return made.content()


def _at_the_right(seed: int) -> dict:
    """Boxes of whole objects in the lower right of all images, as one fixed camera may see them."""
    made = SetMaker(seed, (LANDSCAPE,), classes=2)
    for _ in range(30):
        image = made.image()
        for _ in range(8):
            x, y = (made.rng.uniform(0.8, 1) * image[side] for side in ("width", "height"))
            w, h = made.rng.uniform(40, 200, 2)
            box = [float(x - w / 2), float(y - h / 2), float(w), float(h)]
            made.add(image, bbox=box, area=box[2] * box[3])
    return made.content()


def _small_classes(seed: int) -> dict:
    """Rare classes with one crowd among three objects."""
    made = SetMaker(seed, classes=8)
    for category in range(1, 9):
        for number in range(3):
            image = made.image()
            while not made.rle(image, (20, 200), category_id=category, iscrowd=int(number == 0)):
                pass
    return made.content()


def _few(images: int, each: int) -> Callable:
    return lambda seed: _sized((5, 200), images, each, classes=1)(seed)


SOUND: dict[str, Callable[[int], dict]] = {
    "COCO-like, 1 % RLE crowds": _coco,
    "objects of 1 to 3 pixels": _sized((1, 3)),
    "huge objects": _sized((300, 700)),
    "objects as large as the image": _whole_image,
    "300 objects an image": _sized((5, 60), images=3, each=300),
    "one class": _sized((8, 300), classes=1),
    "one image": _few(1, 5),
    "one annotation": _few(1, 1),
    "boxes only": _boxes,
    "boxes of groups": _groups,
    "RLE only": _rle,
    "polygons of whole pixels": _rounded,
    "boxes rounded outward": _outward,
    "square images": _sized((8, 300), sizes=(SQUARE,)),
    "small pictures": _sized((2, 20), sizes=((32, 32), (24, 40))),
    "boxes of whole objects, masks of parts": lambda seed: _amodal(seed, True),
    "boxes of whole objects": lambda seed: _amodal(seed, False),
    "boxes of whole objects at the right": _at_the_right,
    "a crowd among three objects": _small_classes,
}
