"""Images and their label images, paired by the names of the files.

A label image has the path of its image without the extension, or followed by a known ending:
``a_mask.png`` belongs to ``a.jpg``, and ``b_gtFine_labelIds.png`` to ``b_leftImg8bit.png``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from swinv2_backbone.d2.data.validation.report import Fault, Report
from swinv2_backbone.images.kinds import IMAGE_SUFFIXES, visible_files

LABELS = (".png",)

LABEL_ENDING = re.compile(
    r"(_gt(fine|coarse)_(color|(label|instance)(train)?ids)"
    r"|[_-](masks?|labels?|gt|seg|segmentation)"
    r"|\.(bmp|jpe?g|png|tiff?|webp))$",  # a.jpg.png belongs to a.jpg
    re.IGNORECASE,
)
IMAGE_ENDING = re.compile(r"[_-](leftimg8bit|images?|img|rgb|sat)$", re.IGNORECASE)
# Cityscapes has up to five files for each image.
NOT_LABELS = re.compile(r"_gt(fine|coarse)_(color|instance(train)?ids)$", re.IGNORECASE)
CITYSCAPES = {  # number of classes -> the labels with these values
    19: re.compile(r"_labeltrainids$", re.IGNORECASE),
    34: re.compile(r"_labelids$", re.IGNORECASE),
}

NO_LABEL = Fault("images without a label image", "add the .png of the same name and subfolder")
NO_IMAGE = Fault("label images without an image", "add the image, or remove them")
SAME_NAME = Fault("files that differ only in their extension", "keep one of each")
SEVERAL = Fault(
    "images with several label images",
    "keep one of each; of Cityscapes, NAMES with 19 lines takes *_labelTrainIds.png, with 34 "
    "lines *_labelIds.png",
)
BY_ENDING = Fault("label images found by the ending of their name", "look at some of these pairs")


def no_images(suffixes: tuple[str, ...]) -> Fault:
    return Fault(f"no images ({', '.join(suffixes)})", "give the folder that holds them")


def paired(
    images: Path,
    labels: Path,
    num_classes: int,
    report: Report,
    suffixes: tuple[str, ...] = IMAGE_SUFFIXES,
) -> list[tuple[Path, Path]]:
    """Return images with their label images, in the order of the images' paths.

    Args:
        images, labels: folders; they may be the same if the label images have an ending.
        num_classes: decides between the two kinds of Cityscapes' labels.
        report: takes files without a counterpart, and a note of those paired by an ending.
        suffixes: suffixes of image files.

    Raises:
        ValueError: a folder is missing, or they lie within each other.
    """
    image_files, label_files = _files_of(images, labels, report, suffixes)
    if not image_files:
        report.error(no_images(suffixes), str(images))
    pairs = {stem: stem for stem in image_files.keys() & label_files.keys()}
    used = set(pairs)
    by_ending = _by_ending(image_files.keys() - used, label_files.keys() - used)
    for stem, found in sorted(by_ending.items()):
        used.update(found)
        chosen = _labels_among(found, num_classes)
        names = ", ".join(label_files[label].name for label in chosen)
        if len(chosen) > 1:
            report.error(SEVERAL, f"{image_files[stem].name} ({names})")
        elif chosen:
            report.note(BY_ENDING, f"{image_files[stem].name} with {names}")
        if chosen:
            pairs[stem] = chosen[0]
    for stem in sorted(image_files.keys() - pairs.keys()):
        report.error(NO_LABEL, str(image_files[stem].relative_to(images)))
    for stem in sorted(label_files.keys() - used):
        report.error(NO_IMAGE, str(label_files[stem].relative_to(labels)))
    return [(image_files[stem], label_files[pairs[stem]]) for stem in sorted(pairs)]


def _by_ending(images: Iterable[str], labels: Iterable[str]) -> dict[str, list[str]]:
    """Return the files of labels that belong to an image, by the image; both without extension."""
    plain: dict[str, list[str]] = {}
    for stem in images:
        for key in {stem, IMAGE_ENDING.sub("", stem)}:
            plain.setdefault(key, []).append(stem)
    found: dict[str, list[str]] = {}
    for label in sorted(labels):
        key = LABEL_ENDING.sub("", label)
        owners = [stem for stem in plain.get(key, ()) if stem == key] or plain.get(key, [])
        if key != label and len(owners) == 1:
            found.setdefault(owners[0], []).append(label)
    return found


def _labels_among(found: list[str], num_classes: int) -> list[str]:
    """Return the files that may be an image's labels: one, unless that is not clear."""
    labels = [label for label in found if not NOT_LABELS.search(label)]
    ending = CITYSCAPES.get(num_classes)
    if len(labels) > 1 and ending:
        return [label for label in labels if ending.search(label)] or labels
    return labels


def _files_of(
    images: Path, labels: Path, report: Report, suffixes: tuple[str, ...]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the files of the images and of the labels, by their paths without extension."""
    for key, folder in (("IMAGES", images), ("LABELS", labels)):
        if not folder.is_dir():
            raise ValueError(f"{key} {str(folder)!r} is not a folder")
    one, other = images.resolve(), labels.resolve()
    if one == other:
        both = _files(images, (*suffixes, *LABELS), report)
        ended = {stem: both[stem] for stem in both if LABEL_ENDING.search(stem)}
        if ended:
            return {stem: both[stem] for stem in both if stem not in ended}, ended
    if one.is_relative_to(other) or other.is_relative_to(one):
        raise ValueError(
            f"IMAGES {images} and LABELS {labels} must not lie within each other: labels would "
            "be taken for images (one folder for both is possible if the names of all labels end "
            "in _mask)"
        )
    return _files(images, suffixes, report), _files(labels, LABELS, report)


def _files(folder: Path, extensions: tuple[str, ...], report: Report) -> dict[str, Path]:
    """Return the visible files with one of the extensions, by their path without it."""
    found: dict[str, Path] = {}
    for path in visible_files(folder):
        if path.suffix.lower() not in extensions:
            continue
        stem = str(path.relative_to(folder).with_suffix(""))
        if stem in found:
            report.error(SAME_NAME, f"{found[stem].name} and {path.name} in {path.parent}")
        found[stem] = path
    return found
