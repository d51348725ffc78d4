"""Pre-train a SwinV2 on images without labels by SimMIM (arXiv 2111.09886): it learns to predict
masked pixels.  Any folder of images works, including its subfolders; --image-format BANDS is for
satellite images and others of any number of bands.

tools/pretrain_simmim.py --images photos --output output/simmim --epochs 100 --num-gpus 8 \\
    --variant swinv2_base_window12_192 --batch-size 2048
tools/pretrain_simmim.py ... --resume

Then start a detector from it: tools/train_net.py ... MODEL.WEIGHTS output/simmim/model_final.pth
"""

from __future__ import annotations

import argparse
import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from swinv2_backbone.cli.arguments import add_images, new_parser, pixel_numbers
from swinv2_backbone.cli.errors import errors_as_messages
from swinv2_backbone.variants import VARIANTS, Variant, variant_name

if TYPE_CHECKING:
    from swinv2_backbone.backbone import SwinV2
    from swinv2_backbone.d2.pretraining.recipe import Recipe
    from swinv2_backbone.d2.pretraining.simmim import Pretraining

# As in Recipe, which needs Detectron2 (a test compares).
IMAGE_SIZE, MASK_PATCH, MASK_RATIO = 192, 32, 0.6
WEIGHT_DECAY, AMP_DTYPES = 0.05, ("bfloat16", "float16")
NUM_WORKERS, PERIOD, MAX_BROKEN = 4, 1000, 0.01


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    with errors_as_messages():
        from swinv2_backbone.d2.engine.launch import launch
        from swinv2_backbone.d2.engine.signals import ending_by_signals

    with ending_by_signals():
        launch(pretrain, args)


def pretrain(args: argparse.Namespace) -> None:
    """Pre-train in one process."""
    from swinv2_backbone.d2.engine.endings import errors_in_a_sentence
    from swinv2_backbone.d2.engine.lock import locked

    with contextlib.ExitStack() as owned:
        with errors_as_messages():
            owned.enter_context(locked(args.output))
            pretraining = setup(args)
        with errors_in_a_sentence(args.output):
            pretraining.train()


def setup(args: argparse.Namespace) -> Pretraining:
    from detectron2.utils import comm
    from detectron2.utils.env import seed_all_rng

    from swinv2_backbone.checkpoints.fetch import check_source
    from swinv2_backbone.d2.engine.log_files import open_logs
    from swinv2_backbone.d2.pretraining.masked import find_images
    from swinv2_backbone.d2.pretraining.simmim import Pretraining

    open_logs(args.output)
    check_source(args.init)
    files = find_images(args.images, bands=args.image_format == "BANDS")
    recipe = read_recipe(args, len(files))
    seed_all_rng(args.seed + comm.get_rank())
    return Pretraining(
        build_backbone(args),
        files,
        args.output,
        recipe,
        init=args.init,
        stem=args.stem,
        resume=args.resume,
        device=args.device,
    )


def read_variant(args: argparse.Namespace) -> Variant:
    """Return a published variant, or one of a custom size."""
    size = {"--embed-dim": args.embed_dim, "--depths": args.depths, "--num-heads": args.num_heads}
    given = [name for name, value in size.items() if value is not None]
    if args.variant is not None:
        if given:
            raise ValueError(f"--variant {args.variant} fixes {', '.join(given)}: give either")
        return VARIANTS[variant_name(args.variant)]
    if len(given) < len(size) or args.window_size is None:
        raise ValueError(
            "no backbone is given: give --variant NAME, or a custom size by all of "
            f"{', '.join(size)} and --window-size"
        )
    depths, heads = tuple(args.depths), tuple(args.num_heads)
    return Variant(args.embed_dim, depths, heads, (), (), args.image_size)


def build_backbone(args: argparse.Namespace) -> SwinV2:
    """Build a backbone whose windows are no larger than the maps of its stages.

    Its pretrained windows are those of ``--init`` if given; otherwise the windows built here if
    ``--window-size`` is given; otherwise the variant's, which any model of that name expects.
    """
    from swinv2_backbone.backbone import FEATURES, SwinV2, window_per_stage
    from swinv2_backbone.layers import PATCH_SIZE

    variant = read_variant(args)
    stages, given = len(variant.depths), tuple(args.window_size or variant.window_sizes)
    windows = window_per_stage(given[0] if len(given) == 1 else given, stages, "--window-size")
    open_to_weights = args.init or args.window_size
    maps = [max(args.image_size // (PATCH_SIZE * 2**stage), 1) for stage in range(stages)]
    return SwinV2(
        variant.embed_dim,
        variant.depths,
        num_heads=variant.num_heads,
        window_size=tuple(min(window, side) for (window, _), side in zip(windows, maps)),
        pretrained_window_sizes=None if open_to_weights else variant.pretrained_window_sizes,
        out_features=FEATURES[stages - 1 : stages],
        drop_path_rate=args.drop_path,
        activation_checkpointing=args.activation_checkpointing,
        extra_norm_every=variant.extra_norm_every,
        in_channels=len(pixel_numbers(args)[0]),
    )


def read_recipe(args: argparse.Namespace, images: int) -> Recipe:
    from swinv2_backbone.d2.pretraining.recipe import Recipe

    iterations = args.iterations
    if iterations is None:
        iterations = math.ceil(args.epochs * images / max(args.batch_size, 1))
    mean, std = pixel_numbers(args)
    return Recipe(
        iterations=iterations,
        batch_size=args.batch_size,
        image_size=args.image_size,
        image_format=args.image_format,
        pixel_mean=mean,
        pixel_std=std,
        mask_patch=args.mask_patch,
        mask_ratio=args.mask_ratio,
        lr=args.lr,
        warmup=args.warmup,
        weight_decay=args.weight_decay,
        amp_dtype=args.amp_dtype,
        seed=args.seed,
        num_workers=args.num_workers,
        period=args.period,
        max_nonfinite_steps=args.max_nonfinite_steps,
        max_broken=args.max_broken,
    )


def parser() -> argparse.ArgumentParser:
    found = new_parser(__doc__)
    add = found.add_argument
    add("--images", required=True, metavar="FOLDER", help="including its subfolders")
    add("--output", required=True, metavar="FOLDER", help="checkpoints, logs, pictures")
    length = found.add_mutually_exclusive_group(required=True)
    length.add_argument("--iterations", type=int, metavar="N")
    length.add_argument("--epochs", type=float, metavar="N", help="passes over the images")
    add_images(found)
    _add_model(add)
    _add_recipe(add)
    _add_processes(add)
    return found


def _add_model(add: Callable[..., argparse.Action]) -> None:
    add("--variant", metavar="NAME", help="a published size; or, for a custom size:")
    add("--embed-dim", type=int, metavar="N", help="channels of the first stage")
    add("--depths", type=int, nargs="+", metavar="N", help="blocks of each stage")
    add("--num-heads", type=int, nargs="+", metavar="N", help="heads of each stage")
    add("--window-size", type=int, nargs="+", metavar="N", help="tokens, or one for each stage")
    add("--drop-path", type=float, default=0.0, metavar="RATE")
    add("--activation-checkpointing", action="store_true", help="less memory, more time")
    add("--init", default="", metavar="FILE", help="weights to start from, of any layout")


def _add_recipe(add: Callable[..., argparse.Action]) -> None:
    add("--image-size", type=int, default=IMAGE_SIZE, metavar="PIXELS")
    add("--mask-patch", type=int, default=MASK_PATCH, metavar="PIXELS", help="masked as a whole")
    add("--mask-ratio", type=float, default=MASK_RATIO, help="share of the pixels that is masked")
    add("--batch-size", type=int, default=256, metavar="N", help="of all processes together")
    add("--lr", type=float, help="default: 8e-4 * batch size / 2048, as in the paper")
    add("--warmup", type=int, metavar="ITERATIONS", help="default: a tenth of all")
    add("--weight-decay", type=float, default=WEIGHT_DECAY)
    add("--amp-dtype", choices=AMP_DTYPES, help="mixed precision; default: none")
    add("--max-broken", type=float, default=MAX_BROKEN, help="allowed share of broken images")
    add("--max-nonfinite-steps", type=int, default=0, metavar="N", help="steps that may be skipped")
    add("--seed", type=int, default=0)


def _add_processes(add: Callable[..., argparse.Action]) -> None:
    add("--resume", action="store_true", help="continue from the last checkpoint in --output")
    add("--period", type=int, default=PERIOD, metavar="ITERATIONS", help="between checkpoints")
    add("--num-workers", type=int, default=NUM_WORKERS, metavar="N", help="loaders of each process")
    add("--device", choices=("cuda", "cpu"), help="default: a GPU if there is one")
    add("--num-gpus", type=int, default=1, metavar="N", help="processes on this machine")
    add("--num-machines", type=int, default=1, metavar="N")
    add("--machine-rank", type=int, default=0, metavar="N")
    add("--dist-url", default="auto", help="tcp://HOST:PORT, for several machines")
