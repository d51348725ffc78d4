#!/usr/bin/env python
"""Classify images, or measure the accuracy on a folder of labelled ones, with a SwinV2.

tools/classify.py --model swinv2_tiny_window8_256 photo.jpg photos/*.png
tools/classify.py --model swinv2_tiny_window8_256 --weights weights.pth --imagefolder imagenet/val

Without --weights it fetches the published ones.  Images are prepared as the weights' publishers do:
below 384 px the shorter side becomes 256/224 of the model's, and its centre is cut out; from there
on the whole image becomes the model's square.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.models import Swin_V2_T_Weights
from tqdm import tqdm

from swinv2_backbone import VARIANTS, SwinV2Classifier, build_classifier
from swinv2_backbone.variants import RELEASES, variant_name

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


def preparation(image_size: int) -> transforms.Compose:
    """From an image to a tensor (3, S, S), S = ``image_size``."""
    bicubic = transforms.InterpolationMode.BICUBIC
    if image_size < 384:
        resize = [
            transforms.Resize(image_size * 256 // 224, bicubic),
            transforms.CenterCrop(image_size),
        ]
    else:
        resize = [transforms.Resize((image_size, image_size), bicubic)]
    return transforms.Compose(
        [*resize, transforms.ToTensor(), transforms.Normalize(MEAN, STD)],
    )


def read_image(path: str | os.PathLike) -> Image.Image:
    """An image in RGB, upright as its camera says.

    Raises:
        ValueError: it cannot be read; with its name.
    """
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def class_names(path: Path | None, num_classes: int) -> list[str]:
    """One name a class: from a file, else ImageNet-1k's, else their numbers.

    Raises:
        ValueError: the file has another number of names.
    """
    if path is not None:
        names = path.read_text(encoding="utf-8").splitlines()
        if len(names) != num_classes:
            raise ValueError(f"{path} has {len(names)} lines, the model {num_classes} classes")
        return names
    imagenet = Swin_V2_T_Weights.IMAGENET1K_V1.meta["categories"]
    if len(imagenet) == num_classes:
        return imagenet
    return [f"class {index} (--classes FILE gives names)" for index in range(num_classes)]


@torch.inference_mode()
def classify(
    model: SwinV2Classifier, images: list[str], image_size: int, names: list[str], device: str
) -> None:
    """Print the five most probable classes of each image."""
    prepare = preparation(image_size)
    for path in images:
        image = prepare(read_image(path))[None].to(device)
        probabilities = model(image).softmax(dim=1)[0]
        print(path)
        for p, index in zip(*(part.tolist() for part in probabilities.topk(min(5, len(names))))):
            print(f"  {p:.4f}  {names[index]}")


@torch.inference_mode()
def accuracy(
    model: SwinV2Classifier, folder: Path, image_size: int, args: argparse.Namespace
) -> tuple[float, float, int]:
    """Top-1 and top-5 accuracy in percent, and the number of images.

    Raises:
        ValueError: the folder does not have one folder for each class.
    """
    images = ImageFolder(folder, preparation(image_size), loader=read_image)
    classes = model.head.out_features
    if len(images.classes) != classes:
        raise ValueError(
            f"{folder} has {len(images.classes)} class folders, the model {classes} classes: class "
            "n of the model is the n-th folder in order of their names"
        )
    loader = DataLoader(images, args.batch_size, num_workers=args.workers)
    top1 = top5 = 0
    with tqdm(total=len(images), unit="image", desc=str(folder)) as bar:
        for batch, labels in loader:
            ranked = model(batch.to(args.device)).topk(min(5, classes), dim=1).indices.cpu()
            hits = ranked == labels[:, None]
            top1 += int(hits[:, 0].sum())
            top5 += int(hits.any(dim=1).sum())
            bar.update(len(labels))
    return 100 * top1 / len(images), 100 * top5 / len(images), len(images)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("--model", required=True, metavar="NAME", help="a variant or seed name")
    parser.add_argument("--weights", default="mmpretrain", metavar="FILE")
    parser.add_argument("--imagefolder", type=Path, metavar="DIR", help="one folder a class")
    parser.add_argument("--classes", type=Path, metavar="FILE", help="names, one a line")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    if not args.images and not args.imagefolder:
        parser.error("give images, or --imagefolder")
    return args


def main() -> None:
    args = parse_arguments()
    variant = variant_name(args.model)
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device}: {error}") from error
    for path in args.images:
        if not Path(path).is_file():
            raise ValueError(f"no file {path!r}")
    model = build_classifier(variant, weights=args.weights).eval().to(args.device)
    image_size = VARIANTS[variant].image_size
    if args.images:
        names = class_names(args.classes, model.head.out_features)
        classify(model, args.images, image_size, names, args.device)
    if args.imagefolder:
        top1, top5, count = accuracy(model, args.imagefolder, image_size, args)
        print(f"top-1 {top1:.2f} %, top-5 {top5:.2f} % of {count} images")
        release = RELEASES.get(variant)
        if release and release.top1 and model.head.out_features == release.num_classes:
            print(f"published for ImageNet-1k: {release.top1:.2f} %, {release.top5:.2f} %")


if __name__ == "__main__":
    try:
        main()
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
