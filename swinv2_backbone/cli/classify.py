"""Classify images, or measure the accuracy on a folder of labeled images, with a SwinV2.

tools/classify.py --model swinv2_tiny_window8_256 photo.jpg photos/*.png
tools/classify.py --model swinv2_tiny_window8_256 --weights weights.pth --imagefolder imagenet/val
tools/classify.py scene.tif --model swinv2_tiny_window8_256 --weights nine.pth \\
    --image-format BANDS --pixel-mean 485 512 ... --pixel-std 210 195 ...

Without --weights, the published weights are downloaded.  Images are prepared as by their
publishers: below 384 px the shorter side is resized to 256/224 of the model's image size and the
center is cropped; from 384 px on the whole image is resized to a square.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from swinv2_backbone.cli.arguments import add_images, new_parser, pixel_numbers
from swinv2_backbone.cli.errors import errors_as_messages
from swinv2_backbone.variants import RELEASES, VARIANTS, variant_name

if TYPE_CHECKING:
    from swinv2_backbone.classifier import SwinV2Classifier
    from swinv2_backbone.cli.classification import Pixels


def main(argv: Sequence[str] | None = None) -> None:
    found = parser()
    args = found.parse_args(argv)
    if not args.images and not args.imagefolder:
        found.error("give images, or --imagefolder")
    with errors_as_messages():
        run(args)


def run(args: argparse.Namespace) -> None:
    variant = variant_name(args.model)
    for path in args.images:
        if not Path(path).is_file():
            raise ValueError(f"no file {path!r}")

    import torch

    from swinv2_backbone.build import build_classifier
    from swinv2_backbone.cli.classification import Pixels, check_device

    args.device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
    check_device(args.device)
    pixels = Pixels(args.image_format, *pixel_numbers(args))
    model = build_classifier(
        variant, weights=args.weights, in_channels=len(pixels.mean), stem=args.stem
    )
    model.eval().to(args.device)
    if args.images:
        print_classes(model, variant, pixels, args)
    if args.imagefolder:
        print_accuracy(model, variant, pixels, args)


def print_classes(
    model: SwinV2Classifier, variant: str, pixels: Pixels, args: argparse.Namespace
) -> None:
    """Print the five most probable classes of each image.

    Raises:
        ValueError: images cannot be read; the others are classified all the same.
    """
    from swinv2_backbone.cli.classification import class_names, most_probable

    names = class_names(args.classes, model.head.out_features)
    failed = []
    for path in args.images:
        try:
            image = pixels.read(path)
        except ValueError as error:
            failed.append(str(error))
            continue
        found = most_probable(model, image, VARIANTS[variant].image_size, args.device, pixels)
        print(path)
        for probability, index in found:
            print(f"  {probability:.4f}  {names[index]}")
    if failed:
        raise ValueError("\n".join(failed))


def print_accuracy(
    model: SwinV2Classifier, variant: str, pixels: Pixels, args: argparse.Namespace
) -> None:
    """Print the accuracy on a folder of images, and the published one where it applies."""
    from swinv2_backbone.cli.classification import accuracy

    found = accuracy(
        model,
        args.imagefolder,
        VARIANTS[variant].image_size,
        pixels,
        batch_size=args.batch_size,
        workers=args.workers,
        device=args.device,
    )
    print(f"top-1 {found.top1:.2f} %, top-5 {found.top5:.2f} % of {found.images} images")
    release = RELEASES.get(variant)
    if release and release.top1 and model.head.out_features == release.num_classes:
        print(f"published for ImageNet-1k: {release.top1:.2f} %, {release.top5:.2f} %")


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    found.add_argument("images", nargs="*", metavar="IMAGE")
    found.add_argument("--model", required=True, metavar="NAME", help="a variant or seed name")
    found.add_argument("--weights", default="mmpretrain", metavar="FILE")
    add_images(found)
    found.add_argument("--imagefolder", type=Path, metavar="DIR", help="one folder for each class")
    found.add_argument("--classes", type=Path, metavar="FILE", help="names of classes, one a line")
    found.add_argument("--batch-size", type=int, default=32)
    found.add_argument("--workers", type=int, default=2)
    found.add_argument("--device", help="default: cuda if there is a GPU, else cpu")
    return found
